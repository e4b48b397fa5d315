//! Python's methods of str, where minijinja-contrib lacks them, differs, or has no limit.

use minijinja::value::{from_args, Kwargs};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

use crate::python::{is_space, strip, to_str};
use crate::render::charge;

pub fn call(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        if let Some(result) = str_method(text, method, args)? {
            return Ok(result);
        }
    }
    if method == "format" {
        charge(1 << 16)?;
    }
    pycompat::unknown_method_callback(state, value, method, args)
}

/// None: not ours.
fn str_method(text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match method {
        "strip" | "lstrip" | "rstrip" => {
            let (chars,): (Option<&str>,) = from_args(args)?;
            Value::from(strip(text, chars, method != "rstrip", method != "lstrip"))
        }
        "split" | "rsplit" => {
            let (separator, limit) = split_args(args)?;
            split(text, separator.as_deref(), limit.unwrap_or(-1), method == "rsplit")?
        }
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            Value::from(split_lines(text, keep.unwrap_or(false)))
        }
        "replace" => {
            let (old, new, count): (&str, &str, Option<i64>) = from_args(args)?;
            Value::from(replace(text, old, new, count.unwrap_or(-1))?)
        }
        "join" => {
            let (values,): (&Value,) = from_args(args)?;
            Value::from(join(text, values.try_iter()?)?)
        }
        "find" | "rfind" => {
            let (what,): (&str,) = from_args(args)?;
            let at = if method == "find" { text.find(what) } else { text.rfind(what) };
            Value::from(at.map_or(-1, |bytes| text[..bytes].chars().count() as i64))
        }
        "count" => {
            let (what,): (&str,) = from_args(args)?;
            let empty = what.is_empty();
            Value::from(if empty { text.chars().count() + 1 } else { text.matches(what).count() })
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            partition(text, separator, method == "partition")?
        }
        "isspace" => {
            let () = from_args(args)?;
            Value::from(!text.is_empty() && text.chars().all(is_space))
        }
        _ => return Ok(None),
    }))
}

/// split(sep=None, maxsplit=-1), by place or by name.
fn split_args(args: &[Value]) -> Result<(Option<String>, Option<i64>), Error> {
    let (places, names) = match args.split_last() {
        Some((last, before)) if last.is_kwargs() => (before, Kwargs::try_from(last.clone())?),
        _ => (args, Kwargs::from_iter(std::iter::empty::<(&str, Value)>())),
    };
    let (separator, limit): (Option<String>, Option<i64>) = from_args(places)?;
    let named = (names.get::<Option<String>>("sep")?, names.get::<Option<i64>>("maxsplit")?);
    names.assert_all_used()?;
    Ok((separator.or(named.0), limit.or(named.1)))
}

fn split(text: &str, separator: Option<&str>, limit: i64, from_right: bool) -> Result<Value, Error> {
    let parts = usize::try_from(limit).map_or(usize::MAX, |n| n.saturating_add(1));
    let Some(separator) = separator else {
        return Ok(split_space(text, parts, from_right));
    };
    if separator.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
    }
    let mut pieces: Vec<Value> = if from_right {
        text.rsplitn(parts, separator).map(Value::from).collect()
    } else {
        text.splitn(parts, separator).map(Value::from).collect()
    };
    if from_right {
        pieces.reverse();
    }
    Ok(Value::from(pieces))
}

/// By runs of white space. What is left when the count is used up keeps the space at its far end.
fn split_space(text: &str, parts: usize, from_right: bool) -> Value {
    let mut pieces = Vec::new();
    let mut rest = strip(text, None, !from_right, from_right);
    while !rest.is_empty() {
        let cut = if from_right { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(at) = cut.filter(|_| pieces.len() + 1 < parts) else {
            pieces.push(Value::from(rest));
            break;
        };
        let width = rest[at..].chars().next().map_or(1, char::len_utf8);
        let (left, right) = (&rest[..at], &rest[at + width..]);
        pieces.push(Value::from(if from_right { right } else { left }));
        rest = strip(if from_right { left } else { right }, None, !from_right, from_right);
    }
    if from_right {
        pieces.reverse();
    }
    Value::from(pieces)
}

fn split_lines(text: &str, keep: bool) -> Vec<Value> {
    let is_break = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(is_break).unwrap_or(rest.len());
        let width = if rest[end..].starts_with("\r\n") { 2 } else { rest[end..].chars().next().map_or(0, char::len_utf8) };
        lines.push(Value::from(&rest[..if keep { end + width } else { end }]));
        rest = &rest[end + width..];
    }
    lines
}

pub fn replace(text: &str, old: &str, new: &str, count: i64) -> Result<String, Error> {
    let found = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    let n = usize::try_from(count).map_or(found, |n| n.min(found));
    charge(text.len().saturating_add(n.saturating_mul(new.len())))?;
    Ok(text.replacen(old, new, n))
}

pub fn join(separator: &str, items: impl Iterator<Item = Value>) -> Result<String, Error> {
    let mut out = String::new();
    for (i, item) in items.enumerate() {
        let text = to_str(&item)?;
        charge(text.len() + separator.len())?;
        if i > 0 {
            out.push_str(separator);
        }
        out.push_str(&text);
    }
    Ok(out)
}

fn partition(text: &str, separator: &str, first: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
    }
    let found = if first { text.split_once(separator) } else { text.rsplit_once(separator) };
    let parts = match found {
        Some((left, right)) => [left, separator, right],
        None if first => [text, "", ""],
        None => ["", "", text],
    };
    Ok(parts.into_iter().map(Value::from).collect())
}
