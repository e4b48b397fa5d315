//! The environment that transformers gives its templates, and the limits that a hostile one meets.

use std::borrow::Cow;
use std::cell::Cell;
use std::time::{Duration, Instant};

use minijinja::value::{Kwargs, Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value};

use crate::{bounded, json, methods, python};

pub struct Failure {
    pub code: i32,
    pub line: u32,
    pub message: String,
}

const SYNTAX: i32 = 1;
const RAISED: i32 = 2;
const LIMIT: i32 = 3;
const MAX_SOURCE: usize = 1 << 20;

thread_local! {
    /// Bytes that the running template may still produce, in output, captures and string operations.
    static BUDGET: Cell<usize> = const { Cell::new(0) };
    static EXHAUSTED: Cell<bool> = const { Cell::new(false) };
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A safety net under the counts: single instructions may be slow on large texts.
const MAX_SECONDS: u64 = 10;

/// To be called by all that may take longer than a step.
pub fn check_clock() -> Result<(), Error> {
    if DEADLINE.with(Cell::get).is_some_and(|deadline| Instant::now() > deadline) {
        EXHAUSTED.with(|e| e.set(true));
        return Err(Error::new(ErrorKind::InvalidOperation, "the template takes too long"));
    }
    Ok(())
}

/// To be called before a string of `n` bytes is made.
pub fn charge(n: usize) -> Result<(), Error> {
    BUDGET.with(|budget| match budget.get().checked_sub(n) {
        Some(left) => {
            budget.set(left);
            Ok(())
        }
        None => {
            EXHAUSTED.with(|e| e.set(true));
            Err(Error::new(ErrorKind::InvalidOperation, "the template writes more than is allowed"))
        }
    })
}

fn failure(error: &Error, otherwise: i32) -> Failure {
    let exhausted = EXHAUSTED.with(Cell::get) || error.kind() == ErrorKind::OutOfFuel;
    let mut message = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    if error.detail().is_some() && error.kind() != ErrorKind::InvalidOperation {
        message = format!("{}: {message}", error.kind());
    }
    Failure { code: if exhausted { LIMIT } else { otherwise }, line: error.line().unwrap_or(0) as u32, message }
}

/// `{% generation %}` marks the assistant's words for training; it prints nothing of its own.
fn without_generation_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return source.into();
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let Some(length) = rest[at..].find("%}") else { break };
        let tag = &rest[at + 2..at + length];
        let inner = tag.trim_matches(|c: char| c == '-' || c == '+' || c.is_ascii_whitespace());
        let replacement = match inner {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => inner,
        };
        out.push_str(&rest[..at + 2]);
        out.push_str(&tag.replacen(inner, replacement, 1));
        out.push_str("%}");
        rest = &rest[at + length + 2..];
    }
    out.push_str(rest);
    out.into()
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// What `{{ value }}` prints: Python's str(), where Undefined is nothing.
fn print(out: &mut Output, _state: &State, value: &Value) -> Result<(), Error> {
    let text = python::to_str(value)?;
    charge(text.len())?;
    out.write_str(&text).map_err(Error::from)
}

fn trim(value: &Value, chars: Option<&str>) -> Result<String, Error> {
    Ok(python::strip(&python::to_str(value)?, chars, true, true).to_string())
}

fn join(values: &Value, separator: Option<&Value>, kwargs: Kwargs) -> Result<String, Error> {
    let separator = match kwargs.get::<Option<Value>>("d")?.as_ref().or(separator) {
        Some(s) => python::to_str(s)?.into_owned(),
        None => String::new(),
    };
    let attribute: Option<String> = kwargs.get("attribute")?;
    kwargs.assert_all_used()?;
    let mut items = Vec::new();
    for item in values.try_iter()? {
        items.push(match &attribute {
            Some(name) => item.get_attr(name)?,
            None => item,
        });
    }
    methods::join(&separator, items.into_iter())
}

fn replace(value: &Value, old: &str, new: &str, count: Option<i64>) -> Result<String, Error> {
    methods::replace(&python::to_str(value)?, old, new, count.unwrap_or(-1))
}

fn tojson(value: &Value, args: Rest<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let style = json::Style::from_arguments(&args, &kwargs)?;
    kwargs.assert_all_used()?;
    Ok(Value::from(json::dumps(value, &style)?))
}

fn is_sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
}

fn environment<'s>() -> Environment<'s> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_unknown_method_callback(methods::call);
    env.set_formatter(print);
    env.set_recursion_limit(100);
    bounded::add_operators(&mut env);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", |format: &str| python::strftime_now(format));
    env.add_filter("tojson", tojson);
    env.add_filter("trim", trim);
    env.add_filter("join", join);
    env.add_filter("replace", replace);
    env.add_filter("string", |value: &Value| python::to_str(value).map(Cow::into_owned));
    env.add_test("sequence", is_sequence);
    env
}

fn compile(source: &str) -> Result<bounded::Program<'_>, Failure> {
    EXHAUSTED.with(|e| e.set(false));
    if source.len() > MAX_SOURCE {
        return Err(Failure { code: LIMIT, line: 0, message: "the template is larger than 1 MiB".into() });
    }
    bounded::compile(source).map_err(|e| failure(&e, SYNTAX))
}

pub fn check(source: &str) -> Result<(), Failure> {
    compile(&without_generation_tags(source)).map(|_| ())
}

pub fn render(source: &str, variables: &Value, fuel: u64, max_output: usize) -> Result<String, Failure> {
    let source = without_generation_tags(source);
    let program = compile(&source)?;
    let mut env = environment();
    env.set_fuel(Some(fuel.saturating_mul(2))); // what is charged counts as two instructions
    BUDGET.with(|budget| budget.set(max_output.saturating_mul(4)));
    DEADLINE.with(|deadline| deadline.set(Some(Instant::now() + Duration::from_secs(MAX_SECONDS))));
    let text = bounded::run(&program, &env, variables).map_err(|e| failure(&e, RAISED))?;
    if text.len() > max_output {
        return Err(Failure { code: LIMIT, line: 0, message: "the template writes more than is allowed".into() });
    }
    Ok(text)
}
