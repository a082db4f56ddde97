/* SPDX-License-Identifier: MIT */
/*
 * Goal: a CSV text means what RFC 4180 says, whatever else is refused with the
 * line it is in, and no text reaches a script or a page as anything but words.
 * Method: examples; every cut and every changed byte of a real table; hostile
 * labels, whose scripts and pages are looked through.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "tools/plot.h"

static const char sample[] =
    "config_label,total_writes,total_reads,writer_p50_ms,writer_p99_ms,read_p50_ms,read_p99_ms,"
    "precondition_failure_rate,compactor_p50_ms,compactor_p99_ms,verification\r\n"
    "W1_WR0.02_RD2,1,12000,0.15,0.3,0.07,30,0,0,0,PASS\r\n"
    "\"W1_WR0.05_RD2\",3,12000,0.12,4.1,0.07,10,0.25,1,2,FAIL\r\n";

static struct bytes
text_of(const char *text)
{
    return bytes_make(text, strlen(text));
}

static void
csv__is_read_as_rfc_4180_says(void **state)
{
    (void)state;
    struct plot_csv csv;
    struct plot_csv_fault fault;
    const char text[] = "\xef\xbb\xbf"
                        "a,b,c\r\n1,\"x,\"\"y\"\"\nz\",\n\n,,3.5e2";
    assert_int_equal(plot_csv_parse(text_of(text), &csv, &fault), ESKER_OK);
    assert_int_equal(csv.columns, 3);
    assert_int_equal(csv.rows, 2);
    assert_string_equal(csv.cells[0], "a");
    assert_string_equal(plot_csv_cell(&csv, 0, 1), "x,\"y\"\nz");
    assert_string_equal(plot_csv_cell(&csv, 0, 2), "");
    assert_string_equal(plot_csv_cell(&csv, 1, 2), "3.5e2");
    assert_int_equal(plot_csv_column(&csv, "c"), 2);
    assert_int_equal(plot_csv_column(&csv, "d"), -1);
    assert_true(fabs(plot_csv_number(&csv, 1, 2) - 350) < 1e-9);
    assert_true(isnan(plot_csv_number(&csv, 0, 1)));
    assert_true(isnan(plot_csv_number(&csv, 0, 2)));
    assert_true(isnan(plot_csv_number(&csv, 0, -1)));
    plot_csv_fini(&csv);
}

static void
csv__names_the_line_that_is_wrong(void **state)
{
    (void)state;

    static const struct {
        const char *text;
        uint64_t line;
    } cases[] = {
        {"", 1},
        {"\n\r\n", 3},
        {"a,b\n1\n", 2},
        {"a,b\n1,2\n\n1,2,3\n", 4},
        {"a,b\n1,x\"y\"\n", 2},
        {"a,b\n1,\"x\n\n", 4},
        {"a,b\n1,\"x\"y\n", 2},
        {"a\rb\n", 1},
    };

    for (size_t i = 0; i < COUNTOF(cases); i++) {
        struct plot_csv csv;
        struct plot_csv_fault fault = {0};
        assert_int_equal(plot_csv_parse(text_of(cases[i].text), &csv, &fault), ESKER_INVALID);
        assert_int_equal(fault.line, cases[i].line);
        assert_non_null(fault.what);
    }
    struct plot_csv csv;
    struct plot_csv_fault fault;
    assert_int_equal(plot_csv_parse(bytes_make("a,b\n1,\0\n", 8), &csv, &fault), ESKER_INVALID);
    assert_int_equal(plot_csv_parse(bytes_make("a,b\n1,\"\0\"\n", 10), &csv, &fault), ESKER_INVALID);
}

static void
csv__bounds_its_columns(void **state)
{
    (void)state;
    char text[PLOT_CSV_COLUMNS_MAX + 1];
    struct plot_csv csv;
    struct plot_csv_fault fault;
    memset(text, ',', sizeof text);
    assert_int_equal(plot_csv_parse(bytes_make(text, PLOT_CSV_COLUMNS_MAX - 1), &csv, &fault), ESKER_OK);
    assert_int_equal(csv.columns, PLOT_CSV_COLUMNS_MAX);
    plot_csv_fini(&csv);
    assert_int_equal(plot_csv_parse(bytes_make(text, PLOT_CSV_COLUMNS_MAX), &csv, &fault), ESKER_INVALID);
}

/* Reads, and lets every chart write its scripts. */
static void
draw_all(const char *path, struct bytes text)
{
    struct plot_source source;
    char what[256] = "";
    if (!plot_source_parse(&source, path, text, what, sizeof what)) {
        assert_true(strlen(what) > 0);
        return;
    }
    struct plot_chart *charts = calloc(PLOT_CHARTS_MAX, sizeof *charts);
    assert_non_null(charts);
    uint32_t count = plot_charts(&source, charts);
    assert_true(count <= PLOT_CHARTS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        for (enum plot_form form = PLOT_WIDE; form <= PLOT_NARROW; form++) {
            struct plot_script script;
            plot_script_init(&script);
            charts[i].draw(&charts[i], form, &script);
            assert_false(script.failed);
            assert_null(memchr(script.buf.ptr, '`', script.buf.len));
            assert_null(memchr(script.buf.ptr, '\\', script.buf.len));
            assert_null(memmem(script.buf.ptr, script.buf.len, "system", 6));
            buf_fini(&script.buf);
        }
    }
    free(charts);
    plot_source_close(&source);
}

static void
sources__survive_every_cut_and_every_changed_byte(void **state)
{
    (void)state;
    char text[sizeof sample];
    for (size_t len = 0; len < sizeof sample; len++) {
        draw_all("x.csv", bytes_make(sample, len));
    }
    const char changes[] = {0, '"', ',', '\n', '\r', '`', '\\', '-', '9', '\xff'};
    for (size_t at = 0; at + 1 < sizeof sample; at++) {
        for (size_t i = 0; i < sizeof changes; i++) {
            memcpy(text, sample, sizeof sample);
            text[at] = changes[i];
            draw_all("x.csv", bytes_make(text, sizeof sample - 1));
        }
    }
}

static void
sources__let_no_label_command_anything(void **state)
{
    (void)state;
    const char *const labels[] = {"`system`",      "\"\"; system \"\"id\"\" #", "$(id)", "@x",
                                  "a\\nsystem(1)", "EOD\nsystem 'id'\n",        "%s%n",  "\xf0\x9f\x92\xa5"};
    for (size_t i = 0; i < COUNTOF(labels); i++) {
        char text[1024];
        (void)snprintf(text, sizeof text, "%s\"%s\",3,12,1,1,1,1,0.5,1,1,\"<b>%s\"\n", sample, labels[i],
                       labels[i]);
        struct plot_source source;
        char what[256];
        assert_true(plot_source_parse(&source, "x.csv", text_of(text), what, sizeof what));
        struct plot_chart charts[PLOT_CHARTS_MAX];
        assert_int_equal(plot_charts(&source, charts), 3);
        for (uint32_t chart = 0; chart < 3; chart++) {
            struct plot_script script;
            plot_script_init(&script);
            charts[chart].draw(&charts[chart], PLOT_WIDE, &script);
            const char *tics = memmem(script.buf.ptr, script.buf.len, "set xtics", 9);
            assert_non_null(tics);
            /* Three labels, six quotes, and whatever was in the third stays between its two. */
            const char *end = memchr(tics, '\n', script.buf.len);
            size_t quotes = 0;
            for (const char *at = tics; at < end; at++) {
                quotes += *at == '"';
                assert_true(strchr("`$@%;!\\", *at) == NULL);
            }
            assert_int_equal(quotes, 6);
            buf_fini(&script.buf);
        }
        plot_source_close(&source);
    }
}

static void
sources__know_what_they_are(void **state)
{
    (void)state;

    static const struct {
        const char *path, *text;
        int kind; /* -1: refused */
    } cases[] = {
        {"a.csv", sample, PLOT_WORKLOAD},
        {"a.csv", "config_label,role,second,ops,p50_ms,p99_ms,max_ms\nx,writer,1,2,3,4,5\n", PLOT_SERIES},
        {"a.csv", "workload,series,engine,status,unit,value\nfill,write,esker,done,ops/s,12\n", PLOT_BENCH},
        {"a.csv", "workload,series,engine,status,unit,value\n", -1},
        {"a.csv", "x,y\n1,2\n", -1},
        {"a.json",
         "{\"lines\": [{\"line\": \"fill write\", \"unit\": \"ops/s\", \"engines\": {\"esker\": "
         "{\"median\": 12.5}, \"other\": {\"median\": null}}}]}",
         PLOT_BENCH},
        {"a.json", "{\"lines\": []}", -1},
        {"a.json", sample, -1},
    };

    for (size_t i = 0; i < COUNTOF(cases); i++) {
        struct plot_source source;
        char what[256];
        bool good = plot_source_parse(&source, cases[i].path, text_of(cases[i].text), what, sizeof what);
        assert_int_equal(good, cases[i].kind >= 0);
        if (good) {
            assert_int_equal(source.kind, cases[i].kind);
            plot_source_close(&source);
        }
    }
}

static void
bench__takes_the_median_of_done_rounds(void **state)
{
    (void)state;
    const char text[] = "workload,series,engine,round,status,unit,value\n"
                        "fill,write,esker,0,done,ops/s,10\nfill,write,lmdb,0,done,ops/s,7\n"
                        "fill,write,esker,1,done,ops/s,30\nfill,write,lmdb,1,failed,ops/s,9000\n"
                        "fill,write,esker,2,done,ops/s,20\nrecovery,,esker,0,done,s,0.5\n";
    struct plot_source source;
    char what[256];
    assert_true(plot_source_parse(&source, "r.csv", text_of(text), what, sizeof what));
    assert_int_equal(source.bars->engine_count, 2);
    assert_int_equal(source.bars->line_count, 2);
    assert_string_equal(source.bars->lines[0].name, "fill write");
    assert_true(fabs(source.bars->lines[0].values[0] - 20) < 1e-9);
    assert_true(fabs(source.bars->lines[0].values[1] - 7) < 1e-9);
    assert_string_equal(source.bars->lines[1].name, "recovery");
    assert_true(isnan(source.bars->lines[1].values[1]));
    plot_source_close(&source);
}

static void
svg__inline_has_ids_of_its_own_and_no_tooltips(void **state)
{
    (void)state;
    const char svg[] = "<?xml version=\"1.0\"?>\n<svg viewBox=\"0 0 1 1\"><title>t</title><desc>by</desc>"
                       "<g id=\"canvas\"><circle id='gpPt5' r='1'/><use xlink:href='#gpPt5'/></g></svg>";
    struct buf out;
    buf_init(&out, &mem_default);
    assert_true(plot_svg_inline(text_of(svg), "c1", &out));
    assert_int_equal(buf_append_u8(&out, 0), ESKER_OK);
    assert_string_equal((char *)out.ptr,
                        "<svg viewBox=\"0 0 1 1\"><g id=\"c1-canvas\"><circle id='c1-gpPt5' r='1'/>"
                        "<use xlink:href='#c1-gpPt5'/></g></svg>");
    buf_clear(&out);
    assert_false(plot_svg_inline(text_of("no picture"), "c1", &out));
    buf_clear(&out);
    assert_true(plot_html_text(&out, "a<b>&\"c\"\x01"));
    assert_int_equal(buf_append_u8(&out, 0), ESKER_OK);
    assert_string_equal((char *)out.ptr, "a&lt;b&gt;&amp;&quot;c&quot;?");
    buf_fini(&out);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(csv__is_read_as_rfc_4180_says),
        cmocka_unit_test(csv__names_the_line_that_is_wrong),
        cmocka_unit_test(csv__bounds_its_columns),
        cmocka_unit_test(sources__survive_every_cut_and_every_changed_byte),
        cmocka_unit_test(sources__let_no_label_command_anything),
        cmocka_unit_test(sources__know_what_they_are),
        cmocka_unit_test(bench__takes_the_median_of_done_rounds),
        cmocka_unit_test(svg__inline_has_ids_of_its_own_and_no_tooltips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
