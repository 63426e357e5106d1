#include "weir_plugin.h"

#include <string.h>

// A call takes memory from the end of what is in use, and at its end all of that is free again. This takes the place of
// the generated functions that would free each part of an answer by itself.

static uint8_t *take_aligned(size_t size, size_t align);

void *weir_take(size_t size) { return memset(take_aligned(size, 8), 0, size); }

#ifdef __wasm__

// The bindings ask for an object file with the component's type, which `wasm-tools component embed` adds instead.
void __component_type_object_force_link_weir(void) {}

extern uint8_t __heap_base;

// The next free byte; where calls begin, since what is before belongs to `init`.
static uintptr_t next, kept;

static uint8_t *take_aligned(size_t size, size_t align) {
  const size_t page = 65536;
  if (next == 0) next = (uintptr_t)&__heap_base;
  uintptr_t start = (next + align - 1) & ~(uintptr_t)(align - 1);
  size_t have = __builtin_wasm_memory_size(0) * page;
  if (size > UINT32_MAX - page - start) __builtin_trap();
  if (start + size > have && __builtin_wasm_memory_grow(0, (start + size - have + page - 1) / page) == SIZE_MAX) {
    __builtin_trap();
  }
  next = start + size;
  return (uint8_t *)start;
}

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
  uint8_t *taken = take_aligned(size, align);
  return old_size ? memcpy(taken, old, old_size < size ? old_size : size) : taken;
}

__attribute__((export_name("cabi_post_weir:plugin/description@0.1.0#describe"))) void
__wasm_export_exports_weir_plugin_description_describe_post_return(uint8_t *answer) {
  (void)answer;
}

__attribute__((export_name("cabi_post_weir:plugin/middleware@0.1.0#init"))) void
__wasm_export_exports_weir_plugin_middleware_init_post_return(uint8_t *answer) {
  (void)answer;
  kept = next;
}

__attribute__((export_name("cabi_post_weir:plugin/middleware@0.1.0#on-request"))) void
__wasm_export_exports_weir_plugin_middleware_on_request_post_return(uint8_t *answer) {
  (void)answer;
  next = kept;
}

__attribute__((export_name("cabi_post_weir:plugin/middleware@0.1.0#on-response"))) void
__wasm_export_exports_weir_plugin_middleware_on_response_post_return(uint8_t *answer) {
  (void)answer;
  next = kept;
}

#ifdef EXPORTS_WEIR_PLUGIN_BODY_FILTER_DIRECTION_REQUEST  // The world is `body-plugin`.

__attribute__((export_name("cabi_post_weir:plugin/body-filter@0.1.0#[method]filter.chunk"))) void
__wasm_export_exports_weir_plugin_body_filter_method_filter_chunk_post_return(uint8_t *answer) {
  (void)answer;
  next = kept;
}

__attribute__((export_name("cabi_post_weir:plugin/body-filter@0.1.0#[method]filter.end"))) void
__wasm_export_exports_weir_plugin_body_filter_method_filter_end_post_return(uint8_t *answer) {
  (void)answer;
  next = kept;
}

#endif

#else

#include <stdlib.h>

// In tests, which end soon.
static uint8_t *take_aligned(size_t size, size_t align) {
  (void)align;
  return malloc(size + 1);
}

#endif

weir_string_t weir_text(const char *text) { return (weir_string_t){(uint8_t *)text, strlen(text)}; }

bool weir_same(weir_string_t a, weir_string_t b) { return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0; }

static uint8_t lower(uint8_t byte) { return byte >= 'A' && byte <= 'Z' ? byte + 32 : byte; }

bool weir_contains(const uint8_t *text, size_t length, weir_string_t part) {
  for (size_t start = 0; start + part.len <= length; start++) {
    size_t same = 0;
    while (same < part.len && lower(text[start + same]) == part.ptr[same]) same++;
    if (same == part.len) return true;
  }
  return false;
}

bool weir_is_header_value(weir_string_t text) {
  for (size_t i = 0; i < text.len; i++) {
    if ((text.ptr[i] < ' ' && text.ptr[i] != '\t') || text.ptr[i] == 0x7f) return false;
  }
  return true;
}

// The reader of JSON believes that it is valid, and ends at the end whatever it is.

static const json_t null_value = {(const uint8_t *)"null", (const uint8_t *)"null" + 4};

static json_t without_spaces(json_t json) {
  while (json.at < json.end && strchr(" \t\r\n", *json.at)) json.at++;
  return json;
}

static uint8_t first(json_t json) { return json.at < json.end ? *json.at : 0; }

// Behind the string that begins at `at`.
static const uint8_t *behind_string(json_t json) {
  const uint8_t *at = json.at + 1;
  while (at < json.end && *at != '"') at += *at == '\\' ? 2 : 1;
  return at < json.end ? at + 1 : json.end;
}

// Splits `rest` into the value that it begins with and what follows.
static json_t take_value(json_t *rest) {
  json_t value = without_spaces(*rest);
  size_t depth = 0;
  const uint8_t *at = value.at;
  while (at < value.end) {
    if (*at == '"') {
      at = behind_string((json_t){at, value.end});
      if (depth == 0) break;
      continue;
    }
    if (depth == 0 && strchr(",:]} \t\r\n", *at)) break;
    if (*at == '[' || *at == '{') depth++;
    if ((*at == ']' || *at == '}') && --depth == 0) {
      at++;
      break;
    }
    at++;
  }
  *rest = (json_t){at, value.end};
  value.end = at;
  return value;
}

// Steps behind the bracket, comma or colon that comes next; false if a bracket closes.
static bool step(json_t *rest) {
  *rest = without_spaces(*rest);
  uint8_t mark = first(*rest);
  if (mark == 0 || mark == ']' || mark == '}') return false;
  rest->at++;
  *rest = without_spaces(*rest);
  mark = first(*rest);
  return mark != 0 && mark != ']' && mark != '}';
}

json_t json_of(weir_string_t config) { return without_spaces((json_t){config.ptr, config.ptr + config.len}); }

json_t json_member(json_t object, const char *name) {
  if (first(object) != '{') return null_value;
  while (step(&object)) {
    weir_string_t key = json_text(take_value(&object));
    step(&object);
    json_t value = take_value(&object);
    if (weir_same(key, weir_text(name))) return value;
  }
  return null_value;
}

bool json_is_null(json_t value) { return first(value) == 'n'; }

bool json_is_true(json_t value) { return first(value) == 't'; }

static uint32_t hexadecimal(json_t json) {
  uint32_t number = 0;
  for (int i = 0; i < 4 && json.at < json.end; i++, json.at++) {
    uint8_t digit = lower(*json.at);
    number = number * 16 + (digit <= '9' ? digit - '0' : digit - 'a' + 10) % 16;
  }
  return number;
}

static uint8_t *put_utf8(uint8_t *out, uint32_t point) {
  if (point < 0x80) return *out++ = point, out;
  if (point < 0x800) {
    *out++ = 0xc0 | point >> 6;
  } else {
    if (point < 0x10000) {
      *out++ = 0xe0 | point >> 12;
    } else {
      *out++ = 0xf0 | point >> 18;
      *out++ = 0x80 | (point >> 12 & 0x3f);
    }
    *out++ = 0x80 | (point >> 6 & 0x3f);
  }
  *out++ = 0x80 | (point & 0x3f);
  return out;
}

weir_string_t json_text(json_t value) {
  if (first(value) != '"') return weir_text("");
  uint8_t *text = weir_take(value.end - value.at), *out = text;
  for (value.at++; value.at < value.end && *value.at != '"'; value.at++) {
    if (*value.at != '\\' || value.at + 1 == value.end) {
      *out++ = *value.at;
      continue;
    }
    uint8_t escape = *++value.at;
    const char *names = "bfnrt", *known = strchr(names, escape);
    if (known) {
      *out++ = "\b\f\n\r\t"[known - names];
    } else if (escape == 'u') {
      uint32_t point = hexadecimal((json_t){value.at + 1, value.end});
      value.at += value.end - value.at > 4 ? 4 : 0;
      bool pair = point >> 10 == 0xd800 >> 10 && value.end - value.at > 6 && value.at[1] == '\\';
      if (pair) {
        uint32_t low = hexadecimal((json_t){value.at + 3, value.end});
        point = 0x10000 + ((point & 0x3ff) << 10) + (low & 0x3ff);
        value.at += 6;
      }
      out = put_utf8(out, point);
    } else {
      *out++ = escape;
    }
  }
  return (weir_string_t){text, out - text};
}

size_t json_count(json_t array) {
  size_t count = 0;
  if (first(array) != '[') return 0;
  while (step(&array)) {
    take_value(&array);
    count++;
  }
  return count;
}

weir_string_t *json_texts(json_t array) {
  weir_string_t *texts = weir_take(json_count(array) * sizeof *texts);
  if (first(array) != '[') return texts;
  for (size_t i = 0; step(&array); i++) texts[i] = json_text(take_value(&array));
  return texts;
}

exports_weir_plugin_middleware_plan_t weir_plan(weir_string_t *request_headers, size_t count) {
  return (exports_weir_plugin_middleware_plan_t){
      .phases = EXPORTS_WEIR_PLUGIN_MIDDLEWARE_PHASES_REQUEST,
      .request_headers = {request_headers, count},
  };
}

exports_weir_plugin_middleware_error_t weir_invalid_config(const char *message) {
  return (exports_weir_plugin_middleware_error_t){
      .kind = WEIR_PLUGIN_TYPES_ERROR_KIND_INVALID_CONFIG,
      .message = weir_text(message),
  };
}

weir_answer_t weir_pass(void) { return (weir_answer_t){0}; }

weir_answer_t weir_set_header(weir_string_t name, weir_string_t value) {
  weir_plugin_types_header_edit_t *edit = weir_take(sizeof *edit);
  edit->tag = WEIR_PLUGIN_TYPES_HEADER_EDIT_SET;
  edit->val.set = (weir_plugin_types_header_t){name, {value.ptr, value.len}};
  weir_answer_t answer = {0};
  answer.f0.tag = EXPORTS_WEIR_PLUGIN_MIDDLEWARE_REQUEST_VERDICT_EDIT;
  answer.f0.val.edit.headers = (weir_plugin_types_list_header_edit_t){edit, 1};
  return answer;
}

weir_answer_t weir_reply(uint16_t status, const char *text) {
  weir_string_t body = weir_text(text);
  weir_answer_t answer = {0};
  answer.f0.tag = EXPORTS_WEIR_PLUGIN_MIDDLEWARE_REQUEST_VERDICT_REPLY;
  answer.f0.val.reply.status = status;
  answer.f0.val.reply.body = (weir_list_u8_t){body.ptr, body.len};
  return answer;
}
