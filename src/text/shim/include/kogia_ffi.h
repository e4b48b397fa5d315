#pragma once
/* The C face of the Rust library: chat templates by minijinja.
 *
 * Nothing here throws or aborts on bad input: a panic inside is caught and returned as
 * KOGIA_FFI_PANIC. All functions may be called from several threads at once. */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  KOGIA_FFI_OK = 0,
  KOGIA_FFI_SYNTAX = 1, /* the template does not parse */
  KOGIA_FFI_RAISED = 2, /* it raised, or did something impossible */
  KOGIA_FFI_LIMIT = 3,  /* it ran too long, or wrote too much */
  KOGIA_FFI_INPUT = 4,  /* the arguments are not UTF-8 or not JSON */
  KOGIA_FFI_PANIC = 5
};

/* Text that the library owns: what was rendered, or what went wrong. Give it back. */
typedef struct {
  uint8_t* data;
  size_t size;
  size_t capacity;
} KogiaFfiText;
void kogia_ffi_free_text(KogiaFfiText text);

/* The variables of a template, read once from a JSON object and used for many renderings. */
typedef struct KogiaFfiVariables KogiaFfiVariables;
int kogia_ffi_variables(const uint8_t* json, size_t size, KogiaFfiVariables** variables,
                        KogiaFfiText* error);
void kogia_ffi_free_variables(KogiaFfiVariables* variables);

/* Does the template parse? `line` (from 1, 0 if unknown) and `error` say where it does not. */
int kogia_ffi_check(const uint8_t* source, size_t size, KogiaFfiText* error, uint32_t* line);

/* Renders. `fuel` bounds the instructions, `max_output` the bytes written, captured ones included.
 * `text` becomes the rendering or the error. */
int kogia_ffi_render(const uint8_t* source, size_t size, const KogiaFfiVariables* variables,
                     uint64_t fuel, size_t max_output, KogiaFfiText* text, uint32_t* line);

#ifdef __cplusplus
}
#endif
