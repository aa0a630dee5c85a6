//! Runs a rewritten template in minijinja, within limits.

use std::fmt;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Value};
use minijinja::{AutoEscape, Environment, ErrorKind, State, UndefinedBehavior};

use super::marks::is_generated;
use super::methods::Args;
use super::rewrite::Rewritten;
use super::strftime::strftime;
use super::value::{DictKind, ListKind, Py, Res, Runtime, err, lock, py, type_name};
use super::{Limits, RenderInput, TemplateError};

/// The name under which minijinja knows the template.
const NAME: &str = "template";
/// How many elements `range` may give, as Jinja's sandbox has it.
const MAX_RANGE: i128 = 100_000;

type Helper = fn(&Runtime, &mut State, &[Value]) -> Res;

/// A function of a template, bound to the runtime of one rendering.
struct Function {
    runtime: Arc<Runtime>,
    helper: Helper,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<function>")
    }
}

impl Object for Function {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Res {
        (self.helper)(&self.runtime, state, args)
    }
}

fn arg(args: &[Value], i: usize) -> Res<&Value> {
    args.get(i).ok_or_else(|| err("an argument is missing"))
}

/// Folds a chain of one binary operator from the left.
fn fold(args: &[Value], op: impl Fn(&Value, &Value) -> Res) -> Res {
    let (first, rest) = args.split_first().ok_or_else(|| err("an argument is missing"))?;
    rest.iter().try_fold(first.clone(), |a, b| op(&a, b))
}

/// What the rewritten template calls: operators, containers, filters, and Jinja's own functions.
const FUNCTIONS: &[(&str, Helper)] = &[
    ("__add", |rt, _, args| {
        // A long sum of strings is made in one go, not by copying the growing text for each term.
        if args.iter().all(|a| a.as_str().is_some() && !a.is_safe()) {
            return concat(rt, args);
        }
        fold(args, |a, b| rt.add(a, b))
    }),
    ("__sub", |rt, _, args| fold(args, |a, b| rt.sub(a, b))),
    ("__mul", |rt, _, args| fold(args, |a, b| rt.mul(a, b))),
    ("__div", |rt, _, args| fold(args, |a, b| rt.div(a, b))),
    ("__floordiv", |rt, _, args| fold(args, |a, b| rt.floordiv(a, b))),
    ("__mod", |rt, _, args| fold(args, |a, b| rt.modulo(a, b))),
    ("__pow", |rt, _, args| fold(args, |a, b| rt.pow(a, b))),
    ("__neg", |rt, _, args| rt.neg(arg(args, 0)?)),
    ("__pos", |rt, _, args| rt.neg(&rt.neg(arg(args, 0)?)?)),
    ("__concat", |rt, _, args| concat(rt, args)),
    ("__compare", |rt, _, args| {
        for step in args.windows(3).step_by(2) {
            let [a, op, b] = step else { continue };
            if !rt.compare(op.as_str().unwrap_or_default(), a, b)? {
                return Ok(Value::from(false));
            }
        }
        Ok(Value::from(true))
    }),
    ("__list", |rt, _, args| rt.list(args.to_vec())),
    ("__tuple", |rt, _, args| rt.tuple(args.to_vec())),
    ("__dict", |rt, _, args| {
        rt.dict(args.chunks_exact(2).filter_map(|kv| Some((kv.first()?.clone(), kv.get(1)?.clone()))))
    }),
    ("__attr", |rt, _, args| rt.attribute(arg(args, 0)?, arg(args, 1)?.as_str().unwrap_or_default())),
    ("__item", |rt, _, args| rt.item(arg(args, 0)?, arg(args, 1)?)),
    ("__slice", |rt, _, args| {
        let none = Value::from(());
        let bound = |i| args.get(i).unwrap_or(&none);
        rt.slice(arg(args, 0)?, bound(1), bound(2), bound(3))
    }),
    ("__iter", |rt, _, args| rt.list(rt.iterate(arg(args, 0)?)?)),
    ("__filter", |rt, _, args| {
        let rest = Args::new(args.get(2..).unwrap_or_default());
        rt.filter(arg(args, 0)?.as_str().unwrap_or_default(), arg(args, 1)?, &rest)
    }),
    ("__test", |rt, _, args| {
        let rest = Args::new(args.get(2..).unwrap_or_default());
        rt.test(arg(args, 0)?.as_str().unwrap_or_default(), arg(args, 1)?, &rest).map(Value::from)
    }),
    ("__method", method),
    ("__call", |_, state, args| arg(args, 0)?.call(state, args.get(1..).unwrap_or_default())),
    ("__setattr", |rt, _, args| match py(arg(args, 0)?) {
        Py::Dict(dict) if dict.kind == DictKind::Namespace => {
            rt.dict_set(dict, arg(args, 1)?.clone(), arg(args, 2)?.clone())?;
            Ok(Value::from(()))
        }
        _ => Err(err("cannot assign attribute on non-namespace object")),
    }),
    ("__raw", |rt, _, args| {
        let text = args.first().and_then(Value::as_usize).and_then(|i| rt.raw.get(i));
        Ok(text.map_or(Value::UNDEFINED, |text| Value::from(text.clone())))
    }),
    ("namespace", |rt, _, args| make_dict(rt, DictKind::Namespace, args)),
    ("dict", |rt, _, args| make_dict(rt, DictKind::Dict, args)),
    ("range", range),
    ("raise_exception", |rt, _, args| {
        let message = rt.str(arg(args, 0)?)?;
        lock(&rt.raised).get_or_insert_with(|| message.clone());
        Err(err(message))
    }),
    ("strftime_now", |rt, _, args| {
        let format = arg(args, 0)?.as_str().ok_or_else(|| err("strftime_now requires a str"))?;
        rt.charge_string(format.len().saturating_mul(8))?;
        rt.string(strftime(rt.now, format))
    }),
];

fn concat(rt: &Runtime, args: &[Value]) -> Res {
    let mut out = String::new();
    for value in args {
        let text = rt.str(value)?;
        rt.check_len(out.len().saturating_add(text.len()))?;
        out.push_str(&text);
    }
    Ok(Value::from(out))
}

fn make_dict(rt: &Runtime, kind: DictKind, args: &[Value]) -> Res {
    let args = Args::new(args);
    let mut pairs = match args.positional.first() {
        Some(value) => rt.pairs_of(value)?,
        None => Vec::new(),
    };
    pairs.extend(args.all_named().into_iter().map(|(name, value)| (Value::from(name), value)));
    rt.dict_of(kind, pairs)
}

fn range(rt: &Runtime, _: &mut State, args: &[Value]) -> Res {
    let bound = |v: &Value| match py(v) {
        Py::Int(i) => Ok(i),
        Py::Bool(b) => Ok(i128::from(b)),
        _ => Err(err(format!("'{}' object cannot be interpreted as an integer", type_name(v)))),
    };
    let bounds: Vec<i128> = args.iter().map(bound).collect::<Res<_>>()?;
    let (start, stop, step) = match bounds.as_slice() {
        [stop] => (0, *stop, 1),
        [start, stop] => (*start, *stop, 1),
        [start, stop, step] if *step != 0 => (*start, *stop, *step),
        _ => return Err(err("range takes one to three integers, the last not zero")),
    };
    let span = if step > 0 { stop.saturating_sub(start) } else { start.saturating_sub(stop) };
    let width = i128::try_from(step.unsigned_abs()).unwrap_or(i128::MAX);
    let count = span.max(0) / width + i128::from(span.max(0) % width != 0);
    if count > MAX_RANGE {
        return Err(rt.exceed("the limit of 100000 elements for a range"));
    }
    rt.charge(count as usize * 32)?;
    let items = (0..count).map(|i| start.saturating_add(i.saturating_mul(step)));
    rt.list_of(ListKind::Range, items.map(super::value::int).collect())
}

fn method(rt: &Runtime, state: &mut State, args: &[Value]) -> Res {
    let (object, name) = (arg(args, 0)?, arg(args, 1)?.as_str().unwrap_or_default());
    let rest = args.get(2..).unwrap_or_default();
    match py(object) {
        Py::Str(s) => rt.str_method(object, s, name, rest),
        Py::List(list) if list.kind == ListKind::List || matches!(name, "index" | "count") => {
            rt.list_method(list, name, &Args::new(rest))
        }
        // A namespace may hold a macro's result, but nothing that can be called.
        Py::Dict(dict) => rt.dict_method(dict, name, &Args::new(rest)),
        Py::Undefined => Err(err(format!("cannot call '{name}' of a value that is not defined"))),
        Py::Other => object.call_method(state, name, rest),
        _ => Err(err(format!("'{}' object has no attribute '{name}'", type_name(object)))),
    }
}

/// Empties the containers of a rendering when it ends, however it ends.
struct Cleanup(Arc<Runtime>);

impl Drop for Cleanup {
    fn drop(&mut self) {
        self.0.clear();
    }
}

fn environment(limits: &Limits) -> Environment<'_> {
    let mut env = Environment::empty();
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_recursion_limit(limits.recursion);
    env.set_debug(false);
    env
}

/// Whether minijinja accepts the rewritten template.
pub(super) fn check(template: &Rewritten) -> Result<(), TemplateError> {
    let limits = Limits::default();
    let env = environment(&limits);
    env.template_from_named_str(NAME, &template.source).map(|_| ()).map_err(|e| TemplateError::Syntax {
        line: e.line().unwrap_or(1),
        column: 1,
        message: e.detail().map_or_else(|| e.kind().to_string(), str::to_string),
    })
}

/// Renders, with every string of the data put through the function that belongs to it.
///
/// `data` is for everything that the conversation's user side may have written, `generated` for the
/// assistant's messages.
pub(super) fn run(
    template: &Rewritten,
    input: &RenderInput,
    limits: &Limits,
    data: &dyn Fn(&str) -> Option<String>,
    generated: &dyn Fn(&str) -> Option<String>,
) -> Result<String, TemplateError> {
    let size = json_size(&input.messages) + input.tools.as_ref().map_or(0, json_size);
    let messages = input.messages.as_array().ok_or(TemplateError::Messages)?;
    // A template that gathers its text in a variable copies it once per message.
    let scaled = (size as u64).saturating_mul(4 * (messages.len() as u64 + 16));
    let runtime = Arc::new(Runtime::new(
        template.raw.clone(),
        input.now.unwrap_or_else(super::local_now),
        limits.work.saturating_add(scaled),
        limits.output.saturating_add(size.saturating_mul(8)),
    ));
    let _cleanup = Cleanup(runtime.clone());
    let mut env = environment(limits);
    env.set_fuel(Some(limits.fuel.saturating_add((size as u64).saturating_mul(100))));
    for (name, helper) in FUNCTIONS {
        env.add_global(*name, Value::from_object(Function { runtime: runtime.clone(), helper: *helper }));
    }
    let formatting = runtime.clone();
    env.set_formatter(move |out, _, value| {
        let written = match value.as_str() {
            Some(text) => {
                formatting.charge_string(text.len())?;
                out.write_str(text)
            }
            None => out.write_str(&formatting.str(value)?),
        };
        written.map_err(|_| formatting.exceed("the limit of the output's size"))
    });

    let convert = |json: &serde_json::Value| runtime.json_value(json, data);
    let build = || -> Res<Vec<(String, Value)>> {
        let mut list = Vec::new();
        for message in messages {
            list.push(if is_generated(message) {
                runtime.json_value(message, generated)?
            } else {
                convert(message)?
            });
        }
        let mut variables = vec![("messages".to_string(), runtime.list(list)?)];
        if let Some(tools) = &input.tools {
            variables.push(("tools".into(), convert(tools)?));
        }
        variables.push(("add_generation_prompt".into(), Value::from(input.add_generation_prompt)));
        variables.push(("bos_token".into(), runtime.string(&input.bos_token)?));
        variables.push(("eos_token".into(), runtime.string(&input.eos_token)?));
        for (name, value) in &input.extra {
            variables.push((name.clone(), convert(value)?));
        }
        Ok(variables)
    };
    let failed = |e: &minijinja::Error| {
        let line = e.line().unwrap_or(1);
        if let Some(message) = lock(&runtime.raised).take() {
            return TemplateError::Raised { line, message };
        }
        if let Some(what) = lock(&runtime.exceeded).take() {
            return TemplateError::Limit { line, what };
        }
        if e.kind() == ErrorKind::OutOfFuel {
            return TemplateError::Limit { line, what: "the limit of steps".into() };
        }
        let message = e.detail().map_or_else(|| e.kind().to_string(), str::to_string);
        if message.contains("recursion limit") {
            return TemplateError::Limit { line, what: "the recursion limit".into() };
        }
        TemplateError::Render { line, message }
    };
    let variables = build().map_err(|e| failed(&e))?;
    let compiled = env.template_from_named_str(NAME, &template.source).map_err(|e| failed(&e))?;
    // Every write went through the formatter, which charged it: this text is within the budget of work.
    let text = compiled.render(Value::from_pairs(variables)).map_err(|e| failed(&e))?;
    if text.len() > limits.output.saturating_add(size.saturating_mul(8)) {
        return Err(TemplateError::Limit { line: 1, what: "the limit of the output's size".into() });
    }
    Ok(text)
}

/// About how many bytes of text a JSON value holds.
fn json_size(json: &serde_json::Value) -> usize {
    let mut size = 0_usize;
    let mut open = vec![json];
    while let Some(value) = open.pop() {
        size += 8;
        match value {
            serde_json::Value::String(s) => size += s.len(),
            serde_json::Value::Array(items) => open.extend(items),
            serde_json::Value::Object(entries) => {
                size += entries.keys().map(String::len).sum::<usize>();
                open.extend(entries.values());
            }
            _ => {}
        }
    }
    size
}
