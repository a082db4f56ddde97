/* SPDX-License-Identifier: MIT */
/* put, get and del: one key. */
#include <stdio.h>
#include <unistd.h>

#include "base/status.h"
#include "tools/load_reader.h"
#include "tools/text_out.h"
#include "tools/tool.h"

enum { POINT_READ_BYTES = 64 << 10 };

/* All of standard input, for values that do not fit into an argument. */
static int
point_read_stdin(struct buf *value)
{
    int fd = STDIN_FILENO;
    for (;;) {
        if (buf_reserve(value, POINT_READ_BYTES) != ESKER_OK) {
            return tool_fail();
        }
        int64_t done = load_read_fd(&fd, value->ptr + value->len, POINT_READ_BYTES);
        if (done < 0) {
            tool_say("cannot read standard input: %s", strerrordesc_np((int)-done));
            return TOOL_FAILED;
        }
        if (done == 0) {
            return TOOL_OK;
        }
        value->len += (size_t)done;
        if (value->len > LOAD_VALUE_BYTES_MAX) {
            tool_say("the value on standard input is longer than 256 MiB");
            return TOOL_USAGE;
        }
    }
}

/* In the words of the option ttl. */
static bool
point_ttl(const char *text, uint64_t *out)
{
    char word[64];
    esker_options options;
    esker_options_init(&options);
    int len = snprintf(word, sizeof word, "ttl=%s", text);
    if (len < 0 || (size_t)len >= sizeof word || esker_options_parse(&options, word) != ESKER_OK ||
        options.default_ttl_ms == 0) {
        return false;
    }
    *out = options.default_ttl_ms;
    return true;
}

int
tool_put(struct tool *tool)
{
    esker_db *db = NULL;
    struct buf value;
    struct tool_flag ttl = {.name = "--ttl", .takes_value = true};
    esker_write_options options;
    esker_write_options_init(&options);
    int code = tool_parse(tool, &ttl, 1, 2, 3);
    if (code != TOOL_OK) {
        return code;
    }
    if (ttl.given && !point_ttl(ttl.value, &options.ttl_ms)) {
        return tool_usage(tool, "--ttl %s is no time such as 1500ms, 90s, 15m, 12h or 7d", ttl.value);
    }
    buf_init(&value, &mem_default);
    if (tool->word_count == 2) {
        code = point_read_stdin(&value);
    } else if (buf_append(&value, tool->words[2], strlen(tool->words[2])) != ESKER_OK) {
        code = tool_fail();
    }
    if (code == TOOL_OK) {
        code = tool_open(tool, true, &db);
    }
    if (code == TOOL_OK) {
        esker_slice bytes = esker_bytes(value.ptr, value.len);
        code = esker_put(db, esker_str(tool->words[1]), bytes, &options) == ESKER_OK ? TOOL_OK : tool_fail();
        code = tool_close(db, code);
    }
    buf_fini(&value);
    return code;
}

int
tool_del(struct tool *tool)
{
    esker_db *db = NULL;
    int code = tool_parse(tool, NULL, 0, 2, 2);
    if (code == TOOL_OK) {
        code = tool_open(tool, false, &db);
    }
    if (code != TOOL_OK) {
        return code;
    }
    code = esker_delete(db, esker_str(tool->words[1]), NULL) == ESKER_OK ? TOOL_OK : tool_fail();
    return tool_close(db, code);
}

int
tool_get(struct tool *tool)
{
    esker_db *db = NULL;
    int code = tool_parse(tool, NULL, 0, 2, 2);
    if (code == TOOL_OK) {
        code = tool_open(tool, false, &db);
    }
    if (code != TOOL_OK) {
        return code;
    }
    esker_value value = {0};
    struct text_out out;
    esker_status status = esker_get(db, esker_str(tool->words[1]), NULL, &value);
    if (status == ESKER_OK) {
        text_out_init(&out, STDOUT_FILENO);
        text_out_bytes(&out, value.data, value.size);
        if (isatty(STDOUT_FILENO) == 1) {
            text_out_bytes(&out, "\n", 1);
        }
        code = text_out_finish(&out, TOOL_OK);
        esker_value_release(&value);
    } else {
        code = status == ESKER_NOT_FOUND ? TOOL_NEGATIVE : tool_fail();
    }
    return tool_close(db, code);
}
