//! A compiled template whose memory is bounded.
//!
//! minijinja counts instructions, but one instruction may double a string: forty of them fill any
//! memory. So the instructions that make text without asking us (+, *, ~ and raw text, which may go
//! into a capture) are replaced by calls that are charged, and what filters, methods and list literals
//! make is charged after the fact. These calls also look at the clock.

use std::collections::BTreeMap;

use minijinja::machinery::{make_string_output, parse, CodeGenerator, Instruction, Instructions, Vm, WhitespaceConfig};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

use crate::python::to_str;
use crate::render::{charge, check_clock};

const ADD: &str = "__kogia_add";
const MUL: &str = "__kogia_mul";
const CONCAT: &str = "__kogia_concat";
const IN: &str = "__kogia_in";
const MADE: &str = "__kogia_made";
const BUILT: &str = "__kogia_built";

pub struct Program<'s> {
    main: Instructions<'s>,
    blocks: BTreeMap<&'s str, Instructions<'s>>,
}

pub fn compile(source: &str) -> Result<Program<'_>, Error> {
    let white_space = WhitespaceConfig { trim_blocks: true, lstrip_blocks: true, ..Default::default() };
    let tree = parse(source, "chat_template", SyntaxConfig::default(), white_space)?;
    let mut generator = CodeGenerator::new("chat_template", source);
    generator.compile_stmt(&tree);
    let (main, blocks) = generator.finish();
    let blocks = blocks.into_iter().map(|(name, block)| (name, charged(&block, source))).collect();
    Ok(Program { main: charged(&main, source), blocks })
}

pub fn run(program: &Program, env: &Environment, variables: &Value) -> Result<String, Error> {
    let mut text = String::new();
    let mut out = make_string_output(&mut text);
    Vm::new(env).eval(&program.main, variables.clone(), &program.blocks, &mut out, AutoEscape::None)?;
    Ok(text)
}

pub fn add_operators(env: &mut Environment) {
    env.add_function(ADD, add);
    env.add_function(MUL, mul);
    env.add_function(CONCAT, concat);
    env.add_function(IN, contains);
    env.add_function(MADE, made);
    env.add_function(BUILT, built);
}

/// The same instructions, with those that make text replaced.
fn charged<'s>(from: &Instructions<'s>, source: &'s str) -> Instructions<'s> {
    let n = from.len() as u32;
    let mut moved_to = Vec::with_capacity(n as usize + 1);
    let mut next = 0;
    for i in 0..n {
        moved_to.push(next);
        next += from.get(i).map_or(0, |instruction| replacement(instruction, &|to| to).len() as u32);
    }
    moved_to.push(next);
    let mut out = Instructions::new("chat_template", source);
    for i in 0..n {
        let line = from.get_line(i).unwrap_or(1) as u16;
        for instruction in from.get(i).map_or_else(Vec::new, |old| replacement(old, &|to| moved_to[to as usize])) {
            out.add_with_line(instruction, line);
        }
    }
    out
}

/// What takes the place of one instruction; `target` moves the targets of jumps.
fn replacement<'s>(old: &Instruction<'s>, target: &dyn Fn(u32) -> u32) -> Vec<Instruction<'s>> {
    use Instruction as I;
    let call = |name, n| I::CallFunction(name, Some(n));
    match old {
        I::EmitRaw(text) => vec![I::LoadConst(Value::from(*text)), I::Emit],
        I::Add => vec![call(ADD, 2)],
        I::Mul => vec![call(MUL, 2)],
        I::StringConcat => vec![call(CONCAT, 2)],
        I::In => vec![call(IN, 2)],
        I::ApplyFilter(..) | I::CallMethod(..) | I::CallFunction(..) | I::CallObject(..) | I::Slice => {
            vec![old.clone(), call(MADE, 1)]
        }
        I::BuildList(_) | I::BuildMap(_) => vec![old.clone(), call(BUILT, 1)],
        I::Iterate(to) => vec![I::Iterate(target(*to))],
        I::Jump(to) => vec![I::Jump(target(*to))],
        I::JumpIfFalse(to) => vec![I::JumpIfFalse(target(*to))],
        I::JumpIfFalseOrPop(to) => vec![I::JumpIfFalseOrPop(target(*to))],
        I::JumpIfTrueOrPop(to) => vec![I::JumpIfTrueOrPop(target(*to))],
        I::BuildMacro(name, to, flags) => vec![I::BuildMacro(name, target(*to), *flags)],
        other => vec![other.clone()],
    }
}

/// The result of a filter, method, function or slice: its own size.
fn made(value: Value) -> Result<Value, Error> {
    check_clock()?;
    match value.kind() {
        ValueKind::String => charge(value.as_str().map_or(0, str::len))?,
        ValueKind::Seq | ValueKind::Map => charge(16 * value.len().unwrap_or(0))?,
        _ => {}
    }
    Ok(value)
}

/// A list or map literal: all that hangs from it, so that no small graph stands for an endless tree.
fn built(value: Value) -> Result<Value, Error> {
    fn walk(value: &Value, depth: usize) -> Result<(), Error> {
        if depth > 100 {
            return Err(Error::new(ErrorKind::InvalidOperation, "a value is nested too deep"));
        }
        charge(16)?;
        match value.kind() {
            ValueKind::Seq => value.try_iter()?.try_for_each(|item| walk(&item, depth + 1)),
            ValueKind::Map => {
                value.try_iter()?.try_for_each(|key| walk(&value.get_item(&key)?, depth + 1))
            }
            _ => Ok(()),
        }
    }
    check_clock()?;
    walk(&value, 0)?;
    Ok(value)
}

/// value in container
fn contains(value: &Value, container: &Value) -> Result<bool, Error> {
    check_clock()?;
    if container.is_undefined() {
        return Ok(false);
    }
    if let Some(text) = container.as_str() {
        let part = value.as_str().ok_or_else(|| impossible("in", value, container))?;
        return Ok(text.contains(part));
    }
    match container.kind() {
        ValueKind::Map => {
            Ok(container.try_iter()?.any(|key| key == *value))
        }
        ValueKind::Seq | ValueKind::Iterable => Ok(container.try_iter()?.any(|item| item == *value)),
        _ => Err(impossible("in", value, container)),
    }
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn joined(a: &str, b: &str) -> Result<Value, Error> {
    charge(a.len() + b.len())?;
    Ok(Value::from([a, b].concat()))
}

/// a ~ b
fn concat(a: &Value, b: &Value) -> Result<Value, Error> {
    joined(&to_str(a)?, &to_str(b)?)
}

/// a + b
fn add(a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return joined(a, b);
    }
    if is_list(a) && is_list(b) {
        charge(32 * (a.len().unwrap_or(0) + b.len().unwrap_or(0)))?;
        return Ok(a.try_iter()?.chain(b.try_iter()?).collect());
    }
    arithmetic("+", a, b, i128::checked_add, |a, b| a + b)
}

/// a * b
fn mul(a: &Value, b: &Value) -> Result<Value, Error> {
    let repeated = |what: &Value| what.as_str().is_some() || is_list(what);
    let (what, times) = if repeated(a) { (a, b) } else { (b, a) };
    if !repeated(what) {
        return arithmetic("*", a, b, i128::checked_mul, |a, b| a * b);
    }
    let times = i64::try_from(times.clone()).map_err(|_| impossible("*", a, b))?.max(0) as usize;
    if let Some(text) = what.as_str() {
        charge(text.len().saturating_mul(times))?;
        return Ok(Value::from(text.repeat(times)));
    }
    charge(what.len().unwrap_or(0).saturating_mul(times).saturating_mul(32))?;
    let items: Vec<Value> = what.try_iter()?.collect();
    Ok((0..times).flat_map(|_| items.iter().cloned()).collect())
}

fn impossible(op: &str, a: &Value, b: &Value) -> Error {
    let message = format!("tried to use {op} on unsupported types {} and {}", a.kind(), b.kind());
    Error::new(ErrorKind::InvalidOperation, message)
}

fn arithmetic(
    op: &str,
    a: &Value,
    b: &Value,
    whole: fn(i128, i128) -> Option<i128>,
    real: fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    let number = |v: &Value| matches!(v.kind(), ValueKind::Number | ValueKind::Bool);
    if !number(a) || !number(b) {
        return Err(impossible(op, a, b));
    }
    let as_whole = |v: &Value| match v.kind() {
        ValueKind::Bool => Some(i128::from(v.is_true())),
        _ if v.is_integer() => i128::try_from(v.clone()).ok(),
        _ => None,
    };
    if let (Some(a), Some(b)) = (as_whole(a), as_whole(b)) {
        let result = whole(a, b).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "a number is too large"))?;
        return Ok(i64::try_from(result).map_or_else(|_| Value::from(result), Value::from));
    }
    let as_real = |v: &Value| as_whole(v).map_or_else(|| f64::try_from(v.clone()).unwrap_or(f64::NAN), |n| n as f64);
    Ok(Value::from(real(as_real(a), as_real(b))))
}
