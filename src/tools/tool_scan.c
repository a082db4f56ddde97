/* SPDX-License-Identifier: MIT */
/* scan and dump: rows as lines. */
#include <unistd.h>

#include "base/status.h"
#include "tools/load_reader.h"
#include "tools/text_escape.h"
#include "tools/text_out.h"
#include "tools/tool.h"

struct scan {
    esker_read_options options;
    bool reverse, jsonl;
    bool tell_timeless;
    uint64_t limit;
    uint64_t timeless; /* rows that expire, in a format that cannot say when */
};

/* One row; a failure of the database is returned, one of the output noted. */
static esker_status
scan_row(struct scan *scan, esker_iter *iter, struct text_out *out)
{
    esker_slice value = {0};
    if (!scan->options.keys_only) {
        TRY(esker_iter_value(iter, &value));
    }
    struct bytes key_bytes = bytes_of_slice(esker_iter_key(iter));
    struct bytes value_bytes = bytes_of_slice(value);
    uint64_t expires_ms = esker_iter_expires_ms(iter);
    scan->timeless += expires_ms != 0 && !scan->jsonl;
    text_out_note(out, scan->jsonl ? text_json_record(&out->buf, key_bytes, value_bytes, expires_ms)
                                   : text_tsv_record(&out->buf, key_bytes,
                                                     scan->options.keys_only ? NULL : &value_bytes));
    text_out_drain(out);
    return ESKER_OK;
}

static int
scan_rows(struct scan *scan, esker_db *db, struct text_out *out)
{
    esker_iter *iter = NULL;
    uint64_t rows = 0;
    esker_status status = esker_iter_create(db, &scan->options, &iter);
    if (status == ESKER_OK) {
        status = scan->reverse ? esker_iter_last(iter) : esker_iter_first(iter);
    }
    while (status == ESKER_OK && rows < scan->limit && text_out_alive(out)) {
        status = scan_row(scan, iter, out);
        if (status == ESKER_OK) {
            status = scan->reverse ? esker_iter_prev(iter) : esker_iter_next(iter);
        }
        rows++;
    }
    esker_iter_destroy(iter);
    return status == ESKER_OK || status == ESKER_END ? TOOL_OK : tool_fail();
}

static int
scan_run(const struct tool *tool, struct scan *scan)
{
    esker_db *db = NULL;
    struct text_out out;
    int code = tool_open(tool, false, &db);
    if (code != TOOL_OK) {
        return code;
    }
    text_out_init(&out, STDOUT_FILENO);
    code = scan_rows(scan, db, &out);
    code = text_out_finish(&out, code);
    if (scan->tell_timeless && scan->timeless > 0) {
        tool_say("%llu rows expire; tsv does not say when, --format jsonl does",
                 (unsigned long long)scan->timeless);
    }
    return tool_close(db, code);
}

static esker_slice
scan_bound(const struct tool_flag *flag)
{
    return flag->given ? esker_str(flag->value) : esker_bytes(NULL, 0);
}

int
tool_scan(struct tool *tool)
{
    enum { FROM, TO, PREFIX, REVERSE, LIMIT, KEYS_ONLY };
    struct tool_flag flags[] = {
        [FROM] = {.name = "--from", .takes_value = true},     [TO] = {.name = "--to", .takes_value = true},
        [PREFIX] = {.name = "--prefix", .takes_value = true}, [REVERSE] = {.name = "--reverse"},
        [LIMIT] = {.name = "--limit", .takes_value = true},   [KEYS_ONLY] = {.name = "--keys-only"},
    };
    struct scan scan = {.limit = UINT64_MAX};
    int code = tool_parse(tool, flags, COUNTOF(flags), 1, 1);
    if (code != TOOL_OK) {
        return code;
    }
    if (flags[LIMIT].given && !tool_number(flags[LIMIT].value, &scan.limit)) {
        return tool_usage(tool, "--limit %s is not a number", flags[LIMIT].value);
    }
    esker_read_options_init(&scan.options);
    scan.options.lower = scan_bound(&flags[FROM]);
    scan.options.upper = scan_bound(&flags[TO]);
    scan.options.prefix = scan_bound(&flags[PREFIX]);
    scan.options.keys_only = flags[KEYS_ONLY].given;
    scan.options.fill_cache = false;
    scan.reverse = flags[REVERSE].given;
    return scan_run(tool, &scan);
}

int
tool_dump(struct tool *tool)
{
    struct tool_flag flags[] = {{.name = "--format", .takes_value = true}};
    struct scan scan = {.limit = UINT64_MAX};
    enum load_format format = LOAD_TSV;
    int code = tool_parse(tool, flags, COUNTOF(flags), 1, 1);
    if (code != TOOL_OK) {
        return code;
    }
    if (flags[0].given && (!load_format_parse(flags[0].value, &format) || format == LOAD_DEB822)) {
        return tool_usage(tool, "--format %s is none of tsv, jsonl", flags[0].value);
    }
    esker_read_options_init(&scan.options);
    scan.options.fill_cache = false;
    scan.jsonl = format == LOAD_JSONL;
    scan.tell_timeless = true;
    return scan_run(tool, &scan);
}
