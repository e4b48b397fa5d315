//! json.dumps, as the tojson filter of transformers calls it (keys in order, nothing escaped for HTML).

use std::fmt::Write;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};

use crate::python;
use crate::render::charge;

const MAX_DEPTH: usize = 200;

pub struct Style {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

impl Style {
    /// tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)
    pub fn from_arguments(args: &[Value], kwargs: &Kwargs) -> Result<Style, Error> {
        let argument = |index: usize, name: &str| -> Result<Option<Value>, Error> {
            let value = match args.get(index) {
                Some(value) => Some(value.clone()),
                None => kwargs.get::<Option<Value>>(name)?,
            };
            Ok(value.filter(|v| !v.is_none() && !v.is_undefined()))
        };
        let indent = match argument(1, "indent")? {
            None => None,
            Some(v) if v.is_integer() => {
                let n = i64::try_from(v).unwrap_or(0).clamp(0, 64);
                Some(" ".repeat(n as usize))
            }
            Some(v) => Some(v.as_str().unwrap_or_default().to_string()),
        };
        let mut style = Style {
            ensure_ascii: argument(0, "ensure_ascii")?.is_some_and(|v| v.is_true()),
            item_separator: if indent.is_some() { "," } else { ", " }.to_string(),
            key_separator: ": ".to_string(),
            indent,
            sort_keys: argument(3, "sort_keys")?.is_some_and(|v| v.is_true()),
        };
        if let Some(separators) = argument(2, "separators")? {
            style.item_separator = python::to_str(&separators.get_item_by_index(0)?)?.into_owned();
            style.key_separator = python::to_str(&separators.get_item_by_index(1)?)?.into_owned();
        }
        Ok(style)
    }
}

pub fn dumps(value: &Value, style: &Style) -> Result<String, Error> {
    let mut out = String::new();
    write_value(value, style, 0, &mut out)?;
    Ok(out)
}

fn write_value(value: &Value, style: &Style, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson: nested too deep"));
    }
    charge(8)?;
    match value.kind() {
        ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => write_number(value, out),
        ValueKind::String => write_string(value.as_str().unwrap_or_default(), style, out)?,
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            write_group(('[', ']'), items.len(), style, depth, out, |i, out| {
                write_value(&items[i], style, depth + 1, out)
            })?;
        }
        ValueKind::Map => {
            let mut keys: Vec<Value> = value.try_iter()?.collect();
            if style.sort_keys {
                keys.sort();
            }
            write_group(('{', '}'), keys.len(), style, depth, out, |i, out| {
                write_key(&keys[i], style, out)?;
                out.push_str(&style.key_separator);
                write_value(&value.get_item(&keys[i])?, style, depth + 1, out)
            })?;
        }
        kind => {
            let message = format!("Object of type {kind} is not JSON serializable");
            return Err(Error::new(ErrorKind::InvalidOperation, message));
        }
    }
    Ok(())
}

fn write_group(
    brackets: (char, char),
    n: usize,
    style: &Style,
    depth: usize,
    out: &mut String,
    mut write_item: impl FnMut(usize, &mut String) -> Result<(), Error>,
) -> Result<(), Error> {
    let new_line = |depth: usize, out: &mut String| -> Result<(), Error> {
        if let Some(indent) = &style.indent {
            charge(1 + indent.len() * depth)?;
            out.push('\n');
            for _ in 0..depth {
                out.push_str(indent);
            }
        }
        Ok(())
    };
    out.push(brackets.0);
    for i in 0..n {
        if i > 0 {
            out.push_str(&style.item_separator);
        }
        new_line(depth + 1, out)?;
        write_item(i, out)?;
    }
    if n > 0 {
        new_line(depth, out)?;
    }
    out.push(brackets.1);
    Ok(())
}

fn write_number(value: &Value, out: &mut String) {
    let mut text = String::new();
    python::number(value, &mut text);
    out.push_str(match text.as_str() {
        "nan" => "NaN",
        "inf" => "Infinity",
        "-inf" => "-Infinity",
        other => other,
    });
}

fn write_key(key: &Value, style: &Style, out: &mut String) -> Result<(), Error> {
    match key.kind() {
        ValueKind::String => write_string(key.as_str().unwrap_or_default(), style, out),
        ValueKind::None | ValueKind::Bool | ValueKind::Number => {
            out.push('"');
            write_value(key, style, 0, out)?;
            out.push('"');
            Ok(())
        }
        _ => Err(Error::new(ErrorKind::InvalidOperation, "tojson: a key is neither text nor number")),
    }
}

fn write_string(text: &str, style: &Style, out: &mut String) -> Result<(), Error> {
    charge(text.len())?;
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (style.ensure_ascii && (c as u32) > 0x7e) => {
                let mut units = [0u16; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(())
}
