//! Values as Python prints them.

use std::borrow::Cow;
use std::fmt::Write;

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

use crate::render::charge;

const MAX_DEPTH: usize = 100;

/// str(value); nothing for an undefined one.
pub fn to_str(value: &Value) -> Result<Cow<'_, str>, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.into());
    }
    if value.is_undefined() {
        return Ok("".into());
    }
    let mut out = String::new();
    repr(value, 0, &mut out)?;
    Ok(out.into())
}

/// repr(value)
fn repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deep"));
    }
    charge(8)?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => number(value, out),
        ValueKind::String => quote(value.as_str().unwrap_or_default(), out)?,
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (i, item) in value.try_iter()?.enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                repr(&item, depth + 1, out)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                repr(&key, depth + 1, out)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, depth + 1, out)?;
            }
            out.push('}');
        }
        _ => {
            let _ = write!(out, "{value}");
        }
    }
    Ok(())
}

pub fn number(value: &Value, out: &mut String) {
    if value.is_integer() {
        let _ = write!(out, "{value}");
    } else {
        float(f64::try_from(value.clone()).unwrap_or(f64::NAN), out);
    }
}

/// repr of a float: the shortest digits, with an exponent below 1e-4 and from 1e16 on.
fn float(x: f64, out: &mut String) {
    if x.is_nan() {
        return out.push_str("nan");
    }
    if x.is_infinite() {
        return out.push_str(if x > 0.0 { "inf" } else { "-inf" });
    }
    let scientific = format!("{x:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if x != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{digits}e{sign}{:02}", exponent.abs());
    } else {
        let plain = format!("{x}");
        out.push_str(&plain);
        if !plain.contains('.') {
            out.push_str(".0");
        }
    }
}

fn quote(text: &str, out: &mut String) -> Result<(), Error> {
    charge(text.len())?;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if !is_printable(c) => {
                let _ = match c as u32 {
                    code @ ..=0xff => write!(out, "\\x{code:02x}"),
                    code @ ..=0xffff => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
            c => out.push(c),
        }
    }
    out.push(quote);
    Ok(())
}

/// str.isprintable, but for unassigned characters.
fn is_printable(c: char) -> bool {
    let space = c.is_whitespace() && c != ' ';
    let hidden = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{e007f}' | '\u{f0000}'..);
    !c.is_control() && !space && !hidden
}

/// str.isspace of one character.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// str.strip, lstrip, rstrip
pub fn strip<'a>(text: &'a str, chars: Option<&str>, left: bool, right: bool) -> &'a str {
    let drop = |c: char| chars.map_or_else(|| is_space(c), |set| set.contains(c));
    let text = if left { text.trim_start_matches(drop) } else { text };
    if right { text.trim_end_matches(drop) } else { text }
}

#[repr(C)]
struct Tm {
    fields: [i32; 9],
    gmtoff: std::ffi::c_long,
    zone: *const std::ffi::c_char,
}

extern "C" {
    fn time(out: *mut i64) -> i64;
    fn localtime_r(time: *const i64, out: *mut Tm) -> *mut Tm;
    fn strftime(out: *mut u8, max: usize, format: *const std::ffi::c_char, time: *const Tm) -> usize;
}

/// datetime.now().strftime(format)
pub fn strftime_now(format: &str) -> Result<String, Error> {
    let too_long = || Error::new(ErrorKind::InvalidOperation, "strftime_now: unusable format");
    if format.is_empty() {
        return Ok(String::new());
    }
    // A mark at the end tells an empty result from a buffer that is too small.
    let format = std::ffi::CString::new(format!("{format}.")).map_err(|_| too_long())?;
    let mut buffer = vec![0u8; 4096];
    // SAFETY: plain libc calls on memory that lives until they return.
    let written = unsafe {
        let now = time(std::ptr::null_mut());
        let mut tm = Tm { fields: [0; 9], gmtoff: 0, zone: std::ptr::null() };
        localtime_r(&now, &mut tm);
        strftime(buffer.as_mut_ptr(), buffer.len(), format.as_ptr(), &tm)
    };
    buffer.truncate(written.checked_sub(1).ok_or_else(too_long)?);
    String::from_utf8(buffer).map_err(|_| too_long())
}
