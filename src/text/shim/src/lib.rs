//! Chat templates for Kogia: minijinja with the manners of Python and of transformers, behind a C face.

mod bounded;
mod json;
mod methods;
mod python;
mod render;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::slice;

use minijinja::Value;
use render::Failure;

/// Text handed to the caller: `include/kogia_ffi.h`.
#[repr(C)]
pub struct Text {
    data: *mut u8,
    size: usize,
    capacity: usize,
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        let mut bytes = std::mem::ManuallyDrop::new(text.into_bytes());
        Text { data: bytes.as_mut_ptr(), size: bytes.len(), capacity: bytes.capacity() }
    }
}

pub struct Variables(Value);

const OK: i32 = 0;
const INPUT: i32 = 4;
const PANIC: i32 = 5;

/// Runs `body`; whatever happens becomes a code and a text.
unsafe fn guarded(text: *mut Text, line: *mut u32, body: impl FnOnce() -> Result<String, Failure>) -> i32 {
    static QUIET: std::sync::Once = std::sync::Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| ())));
    let result = catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|_| Err(Failure { code: PANIC, line: 0, message: "internal error of the template engine".into() }));
    let (code, at, message) = match result {
        Ok(rendered) => (OK, 0, rendered),
        Err(failure) => (failure.code, failure.line, failure.message),
    };
    text.write(message.into());
    if !line.is_null() {
        line.write(at);
    }
    code
}

unsafe fn utf8<'a>(data: *const u8, size: usize) -> Result<&'a str, Failure> {
    let bytes = if size == 0 { &[] } else { slice::from_raw_parts(data, size) };
    std::str::from_utf8(bytes).map_err(|e| Failure { code: INPUT, line: 0, message: e.to_string() })
}

/// # Safety
/// `text` came from this library and is not used again.
#[no_mangle]
pub unsafe extern "C" fn kogia_ffi_free_text(text: Text) {
    if !text.data.is_null() {
        drop(Vec::from_raw_parts(text.data, text.size, text.capacity));
    }
}

/// # Safety
/// The pointers are valid, as `kogia_ffi.h` says.
#[no_mangle]
pub unsafe extern "C" fn kogia_ffi_variables(data: *const u8, size: usize, out: *mut *mut Variables, error: *mut Text) -> i32 {
    out.write(std::ptr::null_mut());
    guarded(error, std::ptr::null_mut(), || {
        let value: serde_json::Value = serde_json::from_str(utf8(data, size)?)
            .map_err(|e| Failure { code: INPUT, line: 0, message: e.to_string() })?;
        out.write(Box::into_raw(Box::new(Variables(Value::from_serialize(value)))));
        Ok(String::new())
    })
}

/// # Safety
/// `variables` came from this library and is not used again.
#[no_mangle]
pub unsafe extern "C" fn kogia_ffi_free_variables(variables: *mut Variables) {
    if !variables.is_null() {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(variables))));
    }
}

/// # Safety
/// The pointers are valid, as `kogia_ffi.h` says.
#[no_mangle]
pub unsafe extern "C" fn kogia_ffi_check(data: *const u8, size: usize, error: *mut Text, line: *mut u32) -> i32 {
    guarded(error, line, || render::check(utf8(data, size)?).map(|()| String::new()))
}

/// # Safety
/// The pointers are valid, as `kogia_ffi.h` says.
#[no_mangle]
pub unsafe extern "C" fn kogia_ffi_render(
    data: *const u8,
    size: usize,
    variables: *const Variables,
    fuel: u64,
    max_output: usize,
    text: *mut Text,
    line: *mut u32,
) -> i32 {
    guarded(text, line, || render::render(utf8(data, size)?, &(*variables).0, fuel, max_output))
}
