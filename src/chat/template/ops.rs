//! Python's operators: arithmetic, comparison, membership, attributes, items and slices.

use std::cmp::Ordering;
use std::sync::Arc;

use minijinja::value::{Object, ObjectRepr, Value};

use super::methods;
use super::value::{DictKind, ListKind, MAX_DEPTH, Py, Res, Runtime, err, int, lock, py, type_name};

fn no_operator(op: &str, a: &Value, b: &Value) -> minijinja::Error {
    if op == "+" && matches!(py(a), Py::Str(_)) {
        return err(format!("can only concatenate str (not \"{}\") to str", type_name(b)));
    }
    err(format!("unsupported operand type(s) for {op}: '{}' and '{}'", type_name(a), type_name(b)))
}

/// A number as an arithmetic operator sees it.
enum Num {
    Int(i128),
    Float(f64),
}

fn num(value: &Value) -> Option<Num> {
    match py(value) {
        Py::Bool(b) => Some(Num::Int(i128::from(b))),
        Py::Int(i) => Some(Num::Int(i)),
        Py::Float(f) => Some(Num::Float(f)),
        _ => None,
    }
}

impl Num {
    fn float(&self) -> f64 {
        match self {
            Num::Int(i) => *i as f64,
            Num::Float(f) => *f,
        }
    }
}

/// What `slice` gives for bounds as Python's `slice(start, stop, step).indices(len)`.
fn slice_indices(len: usize, start: &Value, stop: &Value, step: &Value) -> Res<Vec<usize>> {
    let bound = |v: &Value| match py(v) {
        Py::None | Py::Undefined => Ok(None),
        Py::Int(i) => Ok(Some(i)),
        Py::Bool(b) => Ok(Some(i128::from(b))),
        _ => Err(err("slice indices must be integers or None")),
    };
    let len = len as i128;
    let step = bound(step)?.unwrap_or(1);
    if step == 0 {
        return Err(err("slice step cannot be zero"));
    }
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |i: i128| (if i < 0 { i.saturating_add(len) } else { i }).clamp(low, high);
    let start = bound(start)?.map_or(if step > 0 { low } else { high }, clamp);
    let stop = bound(stop)?.map_or(if step > 0 { high } else { low }, clamp);
    let mut indices = Vec::new();
    let mut i = start;
    while (step > 0 && i < stop) || (step < 0 && i > stop) {
        indices.push(i as usize);
        let Some(next) = i.checked_add(step) else { break };
        i = next;
    }
    Ok(indices)
}

/// A method taken as a value, as `x.items` without a call: never undefined, and of no further use.
#[derive(Debug)]
struct BoundMethod;

impl Object for BoundMethod {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
}

impl Runtime {
    pub fn add(&self, a: &Value, b: &Value) -> Res {
        match (py(a), py(b)) {
            (Py::Str(_), Py::Str(_)) if a.is_safe() || b.is_safe() => {
                self.markup(self.escaped(a)? + &self.escaped(b)?, true)
            }
            (Py::Str(x), Py::Str(y)) => {
                self.charge_string(x.len().saturating_add(y.len()))?;
                Ok(Value::from([x, y].concat()))
            }
            (Py::List(x), Py::List(y))
                if x.kind == y.kind && matches!(x.kind, ListKind::List | ListKind::Tuple) =>
            {
                self.charge((x.len() + y.len()) * 32)?;
                let mut items = x.snapshot();
                items.extend(y.snapshot());
                self.list_of(x.kind, items)
            }
            _ => self.arithmetic("+", a, b, i128::checked_add, |x, y| x + y),
        }
    }

    fn arithmetic(
        &self,
        op: &str,
        a: &Value,
        b: &Value,
        ints: fn(i128, i128) -> Option<i128>,
        floats: fn(f64, f64) -> f64,
    ) -> Res {
        match (num(a), num(b)) {
            (Some(Num::Int(x)), Some(Num::Int(y))) => {
                ints(x, y).map(int).ok_or_else(|| self.exceed("the range of 128-bit integers"))
            }
            (Some(x), Some(y)) => Ok(Value::from(floats(x.float(), y.float()))),
            _ => Err(no_operator(op, a, b)),
        }
    }

    pub fn sub(&self, a: &Value, b: &Value) -> Res {
        self.arithmetic("-", a, b, i128::checked_sub, |x, y| x - y)
    }

    pub fn mul(&self, a: &Value, b: &Value) -> Res {
        let (sequence, count) = match (py(a), py(b)) {
            (Py::Str(_) | Py::List(_), Py::Int(n)) => (a, n),
            (Py::Int(n), Py::Str(_) | Py::List(_)) => (b, n),
            _ => return self.arithmetic("*", a, b, i128::checked_mul, |x, y| x * y),
        };
        let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
        match py(sequence) {
            Py::Str(s) => {
                self.charge_string(s.len().saturating_mul(count))?;
                let text = s.repeat(if s.is_empty() { 0 } else { count });
                Ok(if sequence.is_safe() { Value::from_safe_string(text) } else { Value::from(text) })
            }
            Py::List(list) if matches!(list.kind, ListKind::List | ListKind::Tuple) => {
                self.charge(list.len().saturating_mul(count).saturating_mul(32))?;
                let items = list.snapshot();
                self.list_of(
                    list.kind,
                    if items.is_empty() {
                        items
                    } else {
                        std::iter::repeat_n(items, count).flatten().collect()
                    },
                )
            }
            _ => Err(no_operator("*", a, b)),
        }
    }

    #[expect(clippy::unused_self, reason = "one shape for all operators")]
    pub fn div(&self, a: &Value, b: &Value) -> Res {
        match (num(a), num(b)) {
            (Some(_), Some(y)) if y.float() == 0.0 => Err(err("division by zero")),
            (Some(x), Some(y)) => Ok(Value::from(x.float() / y.float())),
            _ => Err(no_operator("/", a, b)),
        }
    }

    pub fn floordiv(&self, a: &Value, b: &Value) -> Res {
        match num(b) {
            Some(y) if y.float() == 0.0 => Err(err("integer division or modulo by zero")),
            _ => self.arithmetic(
                "//",
                a,
                b,
                |x, y| {
                    let quotient = x.checked_div(y)?;
                    if x % y != 0 && (x < 0) != (y < 0) { quotient.checked_sub(1) } else { Some(quotient) }
                },
                |x, y| (x / y).floor(),
            ),
        }
    }

    pub fn modulo(&self, a: &Value, b: &Value) -> Res {
        if let Py::Str(format) = py(a) {
            return self.printf(format, b, a.is_safe());
        }
        match num(b) {
            Some(y) if y.float() == 0.0 => Err(err("integer division or modulo by zero")),
            _ => self.arithmetic(
                "%",
                a,
                b,
                |x, y| {
                    let rest = x.checked_rem(y)?;
                    Some(if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest })
                },
                |x, y| x - y * (x / y).floor(),
            ),
        }
    }

    pub fn pow(&self, a: &Value, b: &Value) -> Res {
        match (num(a), num(b)) {
            (Some(Num::Int(x)), Some(Num::Int(y))) if y >= 0 => {
                let power = u32::try_from(y).ok().and_then(|y| x.checked_pow(y));
                power.map(int).ok_or_else(|| self.exceed("the range of 128-bit integers"))
            }
            (Some(x), Some(y)) => Ok(Value::from(x.float().powf(y.float()))),
            _ => Err(no_operator("**", a, b)),
        }
    }

    pub fn neg(&self, a: &Value) -> Res {
        match num(a) {
            Some(Num::Int(i)) => {
                i.checked_neg().map(int).ok_or_else(|| self.exceed("the range of 128-bit integers"))
            }
            Some(Num::Float(f)) => Ok(Value::from(-f)),
            None => Err(err(format!("bad operand type for unary -: '{}'", type_name(a)))),
        }
    }

    pub fn equal(&self, a: &Value, b: &Value) -> Res<bool> {
        self.equal_at(a, b, 0)
    }

    fn equal_at(&self, a: &Value, b: &Value, depth: usize) -> Res<bool> {
        if depth > MAX_DEPTH {
            return Err(self.exceed("the nesting depth of a comparison"));
        }
        self.charge(1)?;
        Ok(match (py(a), py(b)) {
            (Py::Undefined, Py::Undefined) | (Py::None, Py::None) => true,
            (Py::Str(x), Py::Str(y)) => {
                self.charge(x.len().min(y.len()) / 16)?;
                x == y
            }
            (Py::List(x), Py::List(y)) => {
                if std::ptr::eq(x, y) {
                    return Ok(true);
                }
                if x.kind != y.kind || x.len() != y.len() {
                    return Ok(false);
                }
                self.charge(x.len() * 16)?;
                for (x, y) in x.snapshot().iter().zip(&y.snapshot()) {
                    if !self.equal_at(x, y, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Py::Dict(x), Py::Dict(y)) => {
                if std::ptr::eq(x, y) {
                    return Ok(true);
                }
                if x.kind == DictKind::Namespace || y.kind == DictKind::Namespace || x.len() != y.len() {
                    return Ok(false);
                }
                self.charge(x.len() * 16)?;
                for (key, value) in x.pairs() {
                    let Some(other) = y.get(&key) else { return Ok(false) };
                    if !self.equal_at(&value, &other, depth + 1)? {
                        return Ok(false);
                    }
                }
                true
            }
            _ => match (num(a), num(b)) {
                (Some(Num::Int(x)), Some(Num::Int(y))) => x == y,
                (Some(x), Some(y)) => x.float() == y.float(),
                _ => false,
            },
        })
    }

    /// The order of two values, or the error that Python raises for types that have none.
    pub fn order(&self, op: &str, a: &Value, b: &Value) -> Res<Option<Ordering>> {
        match (py(a), py(b)) {
            (Py::Str(x), Py::Str(y)) => {
                self.charge(x.len().min(y.len()) / 16)?;
                Ok(Some(x.cmp(y)))
            }
            (Py::List(x), Py::List(y)) if x.kind == y.kind => {
                let (x, y) = (x.snapshot(), y.snapshot());
                self.charge((x.len() + y.len()) * 8 + 8)?;
                for (x, y) in x.iter().zip(&y) {
                    if !self.equal(x, y)? {
                        // Tuples of scalars are what templates sort; deeper ones are refused.
                        return match (py(x), py(y)) {
                            (Py::List(_), _) | (_, Py::List(_)) => {
                                Err(err("nested sequences are not ordered here"))
                            }
                            _ => self.order(op, x, y),
                        };
                    }
                }
                Ok(Some(x.len().cmp(&y.len())))
            }
            _ => match (num(a), num(b)) {
                (Some(Num::Int(x)), Some(Num::Int(y))) => Ok(Some(x.cmp(&y))),
                (Some(x), Some(y)) => Ok(x.float().partial_cmp(&y.float())),
                _ => Err(err(format!(
                    "'{op}' not supported between instances of '{}' and '{}'",
                    type_name(a),
                    type_name(b)
                ))),
            },
        }
    }

    pub fn contains(&self, container: &Value, item: &Value) -> Res<bool> {
        match (py(container), py(item)) {
            (Py::Str(s), Py::Str(part)) => {
                self.charge(s.len() / 4)?;
                Ok(s.contains(part))
            }
            (Py::Str(_), _) => {
                Err(err(format!("'in <string>' requires string as left operand, not {}", type_name(item))))
            }
            (Py::Dict(dict), _) if dict.kind == DictKind::Dict => Ok(dict.get(item).is_some()),
            (Py::List(_) | Py::Undefined, _) => {
                for other in self.iterate(container)? {
                    if self.equal(&other, item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => Err(err(format!("argument of type '{}' is not iterable", type_name(container)))),
        }
    }

    pub fn compare(&self, op: &str, a: &Value, b: &Value) -> Res<bool> {
        match op {
            "==" => self.equal(a, b),
            "!=" => Ok(!self.equal(a, b)?),
            "in" => self.contains(b, a),
            "not in" => Ok(!self.contains(b, a)?),
            _ => {
                let order = self.order(op, a, b)?;
                Ok(match op {
                    "<" => order == Some(Ordering::Less),
                    "<=" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
                    ">" => order == Some(Ordering::Greater),
                    _ => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
                })
            }
        }
    }

    /// `object.name`: Python's attribute first, then the item.
    #[expect(clippy::unused_self, reason = "called as the other operators are")]
    pub fn attribute(&self, object: &Value, name: &str) -> Res {
        match py(object) {
            Py::Undefined => Err(err(format!("cannot read '{name}' of a value that is not defined"))),
            Py::Dict(dict) => {
                if dict.kind == DictKind::Dict && methods::DICT.contains(&name) {
                    return Ok(Value::from_object(BoundMethod));
                }
                Ok(dict.get_str(name).unwrap_or_default())
            }
            Py::Str(_) if methods::STR.contains(&name) => Ok(Value::from_object(BoundMethod)),
            Py::List(list) if list.kind == ListKind::List && methods::LIST.contains(&name) => {
                Ok(Value::from_object(BoundMethod))
            }
            Py::Other => object.get_attr(name),
            _ => Ok(Value::UNDEFINED),
        }
    }

    /// `object[key]`: the item, then Python's attribute.
    pub fn item(&self, object: &Value, key: &Value) -> Res {
        let index = match py(key) {
            Py::Int(i) => Some(i),
            Py::Bool(b) => Some(i128::from(b)),
            _ => None,
        };
        let at = |len: usize| {
            let i = index?;
            usize::try_from(if i < 0 { i + len as i128 } else { i }).ok()
        };
        match py(object) {
            Py::Undefined => Err(err("cannot read an item of a value that is not defined")),
            Py::Dict(dict) => {
                let found = dict.get(key);
                match (found, py(key)) {
                    (Some(value), _) => Ok(value),
                    (None, Py::Str(name)) if dict.kind == DictKind::Dict => {
                        self.attribute_of_item(object, name)
                    }
                    _ => Ok(Value::UNDEFINED),
                }
            }
            Py::List(list) => match (index, py(key)) {
                (Some(_), _) if list.kind == ListKind::Generator => Ok(Value::UNDEFINED),
                (Some(_), _) => {
                    let items = lock(&list.items);
                    Ok(at(items.len()).and_then(|i| items.get(i)).cloned().unwrap_or_default())
                }
                (None, Py::Str(name)) => self.attribute(object, name),
                _ => Ok(Value::UNDEFINED),
            },
            Py::Str(s) => match (index, py(key)) {
                (Some(i), _) => {
                    self.charge(s.len() / 8)?;
                    let c = if i >= 0 {
                        usize::try_from(i).ok().and_then(|i| s.chars().nth(i))
                    } else {
                        usize::try_from(-1 - i).ok().and_then(|i| s.chars().rev().nth(i))
                    };
                    Ok(c.map_or(Value::UNDEFINED, |c| Value::from(c.to_string())))
                }
                (None, Py::Str(name)) => self.attribute(object, name),
                _ => Ok(Value::UNDEFINED),
            },
            Py::Other => object.get_item(key),
            _ => Ok(Value::UNDEFINED),
        }
    }

    fn attribute_of_item(&self, object: &Value, name: &str) -> Res {
        if methods::DICT.contains(&name) { self.attribute(object, name) } else { Ok(Value::UNDEFINED) }
    }

    pub fn slice(&self, object: &Value, start: &Value, stop: &Value, step: &Value) -> Res {
        match py(object) {
            Py::Str(s) => {
                self.charge(s.len().saturating_mul(13))?;
                let chars: Vec<char> = s.chars().collect();
                let indices = slice_indices(chars.len(), start, stop, step)?;
                let text: String = indices.into_iter().filter_map(|i| chars.get(i)).collect();
                self.markup(text, object.is_safe())
            }
            Py::List(list) if matches!(list.kind, ListKind::List | ListKind::Tuple | ListKind::Range) => {
                self.charge(list.len().saturating_mul(24))?;
                let items = list.snapshot();
                let indices = slice_indices(items.len(), start, stop, step)?;
                self.list_of(list.kind, indices.into_iter().filter_map(|i| items.get(i)).cloned().collect())
            }
            Py::Undefined => Err(err("cannot slice a value that is not defined")),
            // Jinja reads `x[a:b]` as an item; what has no such item is undefined.
            _ => Ok(Value::UNDEFINED),
        }
    }
}
