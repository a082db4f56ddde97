/* SPDX-License-Identifier: MIT */
/* gnuplot as a child: script in, picture out, through files in memory. */
#include <errno.h>
#include <spawn.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/status.h"
#include "tools/plot.h"
#include "tools/tool.h"

extern char **environ;

void
plot_script_init(struct plot_script *script)
{
    *script = (struct plot_script){0};
    buf_init(&script->buf, &mem_default);
}

void
plot_script_print(struct plot_script *script, const char *format, ...)
{
    char line[2048];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (len < 0 || (size_t)len >= sizeof line || buf_append(&script->buf, line, (size_t)len) != ESKER_OK) {
        script->failed = true;
    }
}

/* ---- The child ---------------------------------------------------------------------- */

static bool
picture_write(int fd, struct bytes bytes)
{
    size_t at = 0;
    while (at < bytes.len) {
        ssize_t done = write(fd, bytes.ptr + at, bytes.len - at);
        if (done < 0 && errno != EINTR) {
            return false;
        }
        at += done > 0 ? (size_t)done : 0;
    }
    return lseek(fd, 0, SEEK_SET) == 0;
}

static bool
picture_read(int fd, struct buf *out)
{
    ssize_t done = lseek(fd, 0, SEEK_SET) == 0 ? 1 : -1;
    while (done > 0) {
        if (buf_reserve(out, 65536) != ESKER_OK) {
            return false;
        }
        done = read(fd, out->ptr + out->len, 65536);
        done = done < 0 && errno == EINTR ? 1 : done;
        out->len += done > 0 ? (size_t)done : 0;
    }
    return done == 0;
}

/* fds: script, picture, complaints. */
static int
picture_spawn(const int fds[3], pid_t *pid_out)
{
    static const char *const argv[] = {"gnuplot", "--default-settings", "-", NULL};
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0) {
        return ENOMEM;
    }
    int failed = 0;
    for (int i = 0; i < 3 && failed == 0; i++) {
        failed = posix_spawn_file_actions_adddup2(&actions, fds[i], i);
    }
    if (failed == 0) {
        failed = posix_spawnp(pid_out, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    return failed;
}

static void
picture_say_complaint(int fd)
{
    char line[512];
    ssize_t len = pread(fd, line, sizeof line - 1, 0);
    line[len > 0 ? len : 0] = 0;
    tool_say("gnuplot failed: %s", len > 0 ? line : "without a word");
}

static bool
picture_run(const int fds[3], struct buf *out)
{
    pid_t pid = 0;
    int how = 0;
    int failed = picture_spawn(fds, &pid);
    if (failed == ENOENT) {
        tool_say("gnuplot is not installed (Debian: apt install gnuplot-nox)");
        return false;
    }
    if (failed != 0) {
        tool_say("gnuplot cannot be started: %s", strerrordesc_np(failed));
        return false;
    }
    while (waitpid(pid, &how, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(how) || WEXITSTATUS(how) != 0 || !picture_read(fds[1], out) || out->len == 0) {
        picture_say_complaint(fds[2]);
        return false;
    }
    return true;
}

static bool
picture_draw(const struct plot_script *script, struct buf *out)
{
    /* Above 2, so that no dup2 in the child overwrites another. */
    int fds[3] = {memfd_create("esker-script", MFD_CLOEXEC), memfd_create("esker-picture", MFD_CLOEXEC),
                  memfd_create("esker-complaint", MFD_CLOEXEC)};
    bool good = fds[0] > 2 && fds[1] > 2 && fds[2] > 2 && !script->failed &&
                picture_write(fds[0], buf_bytes(&script->buf));
    if (!good) {
        tool_say("no memory for a picture");
    }
    good = good && picture_run(fds, out);
    for (int i = 0; i < 3; i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    return good;
}

/* ---- SVG ------------------------------------------------------------------------------ */

static bool
picture_starts(struct bytes rest, const char *text)
{
    size_t len = strlen(text);
    return rest.len >= len && memcmp(rest.ptr, text, len) == 0;
}

/* Length of an element that is left out, or 0: what hovers as a tooltip, and the program's name. */
static size_t
picture_dropped(struct bytes rest)
{
    static const char *const ends[][2] = {{"<title>", "</title>"}, {"<desc>", "</desc>"}};
    for (size_t i = 0; i < COUNTOF(ends); i++) {
        if (picture_starts(rest, ends[i][0])) {
            const uint8_t *end = memmem(rest.ptr, rest.len, ends[i][1], strlen(ends[i][1]));
            return end == NULL ? 0 : (size_t)(end - rest.ptr) + strlen(ends[i][1]);
        }
    }
    return 0;
}

/* Copies, without tooltips; with an id, every name is put behind it. */
static bool
picture_rewrite(struct bytes svg, const char *id, struct buf *out)
{
    static const char *const before[] = {"id='", "id=\"", "href='#"};
    for (size_t at = 0; at < svg.len;) {
        struct bytes rest = bytes_make(svg.ptr + at, svg.len - at);
        size_t dropped = picture_dropped(rest);
        size_t taken = dropped > 0 ? 0 : 1;
        bool named = false;
        for (size_t i = 0; i < COUNTOF(before) && id != NULL && dropped == 0; i++) {
            if (picture_starts(rest, before[i])) {
                taken = strlen(before[i]);
                named = true;
            }
        }
        if (buf_append(out, rest.ptr, taken) != ESKER_OK ||
            (named && (buf_append(out, id, strlen(id)) != ESKER_OK || buf_append(out, "-", 1) != ESKER_OK))) {
            return false;
        }
        at += dropped + taken;
    }
    return true;
}

bool
plot_svg_inline(struct bytes svg, const char *id, struct buf *out)
{
    const uint8_t *start = memmem(svg.ptr, svg.len, "<svg", 4);
    if (start == NULL) {
        return false;
    }
    size_t skipped = (size_t)(start - svg.ptr);
    return picture_rewrite(bytes_make(start, svg.len - skipped), id, out);
}

bool
plot_picture(const struct plot_chart *chart, enum plot_form form, enum plot_format format, const char *title,
             struct buf *out)
{
    struct plot_script script;
    struct buf raw;
    char word[PLOT_WORD_BYTES];
    plot_script_init(&script);
    buf_init(&raw, &mem_default);
    if (format == PLOT_PNG) {
        plot_script_print(&script,
                          "set terminal pngcairo size %u,%u noenhanced font \"sans,20\" linewidth 2\n",
                          2 * chart->width[form], 2 * chart->height[form]);
    } else {
        plot_script_print(&script,
                          "set terminal svg size %u,%u %s noenhanced font \"sans-serif,14\" rounded%s\n",
                          chart->width[form], chart->height[form], title == NULL ? "dynamic" : "fixed",
                          title == NULL ? "" : " background \"white\"");
    }
    plot_script_print(&script, "set encoding utf8\nset border 3\nset tics nomirror out scale 0.5\n"
                               "set grid lc rgb \"#cccccc\" dt 1 lw 0.8\nset style fill solid noborder\n");
    /* A title stands on top, so that the key goes below. */
    plot_script_print(&script, "keys = \"%s\"\n", title == NULL ? "top" : "bottom");
    if (title != NULL) {
        plot_script_print(&script, "set title \"%s\"\n", plot_word(title, word));
    }
    chart->draw(chart, form, &script);
    bool good = picture_draw(&script, &raw) &&
                (format == PLOT_PNG ? buf_append_bytes(out, buf_bytes(&raw)) == ESKER_OK
                                    : picture_rewrite(buf_bytes(&raw), NULL, out));
    buf_fini(&raw);
    buf_fini(&script.buf);
    return good;
}
