//! The stack machine that interprets a pickle.

use std::boxed::Box;
use std::format;
use std::string::String;
use std::vec::Vec;

use super::{Function, Node, Storage, TensorNode, Value, error, text};
use crate::import::ImportError;

/// Limits on what a pickle of some length may create. torch.save writes about 20 bytes for each value that
/// has parts, 10 for each memo and at least 2 for each item of a list.
pub(super) struct Limits {
    nodes: usize,
    items: usize,
    memos: usize,
    stack: usize,
}

impl Limits {
    fn of(length: usize) -> Self {
        Self {
            nodes: 1024 + length / 8,
            items: 4096 + length / 2,
            memos: 1024 + length / 4,
            stack: 4096 + length / 8,
        }
    }
}

/// Its state.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: Vec<Value>,
    items: usize,
    limits: Limits,
}

impl<'a> Machine<'a> {
    /// At the start of a pickle.
    pub(super) fn new(bytes: &'a [u8], start: usize) -> Self {
        Self {
            bytes,
            at: start,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            items: 0,
            limits: Limits::of(bytes.len() - start.min(bytes.len())),
        }
    }

    /// The values it created, and the offset after the pickle.
    pub(super) fn finish(self) -> (Vec<Node>, usize) {
        (self.nodes, self.at)
    }

    /// The next bytes.
    fn take(&mut self, count: usize) -> Result<&'a [u8], ImportError> {
        let end = self.at.checked_add(count);
        let slice = end.and_then(|end| self.bytes.get(self.at..end));
        let slice = slice.ok_or_else(|| error("its pickle is cut off"))?;
        self.at += count;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ImportError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A line of text, without its end.
    fn line(&mut self) -> Result<Value, ImportError> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|&byte| byte == b'\n');
        let length = length.ok_or_else(|| error("its pickle is cut off"))?;
        let line = self.span(length)?;
        self.at += 1;
        Ok(line)
    }

    /// The next bytes as a text.
    fn span(&mut self, length: usize) -> Result<Value, ImportError> {
        let at = self.at;
        self.take(length)?;
        let narrow = |number: usize| {
            u32::try_from(number).map_err(|_| error("its pickle is longer than 4 GiB"))
        };
        Ok(Value::Text(narrow(at)?, narrow(length)?))
    }

    fn push(&mut self, value: Value) -> Result<(), ImportError> {
        if self.stack.len() >= self.limits.stack {
            return Err(error(
                "its pickle piles up more values than its length allows",
            ));
        }
        self.stack.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Value, ImportError> {
        // Values below the last mark belong to enclosing constructs.
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self
                .stack
                .pop()
                .ok_or_else(|| error("its pickle is damaged")),
            false => Err(error("its pickle takes a value that is not there")),
        }
    }

    /// The values since the last mark.
    fn pop_mark(&mut self) -> Result<Vec<Value>, ImportError> {
        let mark = self.marks.pop();
        let mark = mark.ok_or_else(|| error("its pickle closes what it never opened"))?;
        self.count_items(self.stack.len() - mark)?;
        Ok(self.stack.split_off(mark))
    }

    fn count_items(&mut self, count: usize) -> Result<(), ImportError> {
        self.items += count;
        match self.items > self.limits.items {
            true => Err(error("its pickle makes more items than its length allows")),
            false => Ok(()),
        }
    }

    fn push_node(&mut self, node: Node) -> Result<(), ImportError> {
        if self.nodes.len() >= self.limits.nodes {
            return Err(error("its pickle makes more values than its length allows"));
        }
        self.nodes.push(node);
        // Cannot overflow: the number of nodes is bounded by a fraction of the pickle's length.
        self.push(Value::Node((self.nodes.len() - 1) as u32))
    }

    fn top_node(&mut self) -> Result<&mut Node, ImportError> {
        match self.stack.last() {
            Some(&Value::Node(index)) => Ok(&mut self.nodes[index as usize]),
            _ => Err(error("its pickle adds items to what has none")),
        }
    }

    fn tuple(&mut self, items: Vec<Value>) -> Result<(), ImportError> {
        self.push_node(Node::Tuple(items))
    }

    fn pop_tuple(&mut self, count: usize) -> Result<(), ImportError> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        self.count_items(count)?;
        self.tuple(items)
    }

    fn extend_list(&mut self, items: Vec<Value>) -> Result<(), ImportError> {
        match self.top_node()? {
            Node::List(list) => list.extend(items),
            _ => return Err(error("its pickle adds items to what is no list")),
        }
        Ok(())
    }

    fn extend_dict(&mut self, items: &[Value]) -> Result<(), ImportError> {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(error("its pickle has a key without a value"));
        }
        match self.top_node()? {
            Node::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(error("its pickle adds pairs to what is no dictionary")),
        }
        Ok(())
    }

    fn remember(&mut self, index: usize) -> Result<(), ImportError> {
        let top = self.stack.last().copied();
        let top = top.ok_or_else(|| error("its pickle remembers a value that is not there"))?;
        if index >= self.limits.memos {
            return Err(error(
                "its pickle remembers more values than its length allows",
            ));
        }
        if index >= self.memo.len() {
            self.memo.resize(index + 1, Value::None);
        }
        self.memo[index] = top;
        Ok(())
    }

    fn recall(&mut self, index: usize) -> Result<(), ImportError> {
        let value = self.memo.get(index).copied();
        self.push(value.ok_or_else(|| error("its pickle recalls what it never remembered"))?)
    }

    fn text(&self, value: Value) -> Result<&'a str, ImportError> {
        match value {
            Value::Text(at, length) => text(self.bytes, at, length),
            _ => Err(error("its pickle has no text where one should be")),
        }
    }

    fn number(&self, line: Value) -> Result<i64, ImportError> {
        let line = self.text(line)?;
        let digits = line.trim_end_matches('L');
        digits
            .parse()
            .map_err(|_| error("its pickle has no number where one should be"))
    }

    fn function(&self, module: Value, name: Value) -> Result<Value, ImportError> {
        let (module, name) = (self.text(module)?, self.text(name)?);
        Function::of(module, name).map(Value::Function).ok_or_else(|| {
            let short = |text: &str| text.escape_debug().take(80).collect::<String>();
            error(format!(
                "its pickle names `{}.{}`, which is none of the functions that a state dict needs; \
                 nothing was run. Save `model.state_dict()` and no other objects",
                short(module),
                short(name)
            ))
        })
    }

    fn items_of(&self, value: Value) -> Result<&[Value], ImportError> {
        match value {
            Value::Node(index) => match &self.nodes[index as usize] {
                Node::Tuple(items) => Ok(items),
                _ => Err(error("its pickle has no tuple where one should be")),
            },
            _ => Err(error("its pickle has no tuple where one should be")),
        }
    }

    fn sizes(&self, value: Value) -> Result<Vec<usize>, ImportError> {
        let size = |item: &Value| match *item {
            Value::Int(size) => usize::try_from(size).ok(),
            _ => None,
        };
        let sizes: Option<Vec<usize>> = self.items_of(value)?.iter().map(size).collect();
        let sizes = sizes.ok_or_else(|| error("a tensor's shape has something else than sizes"))?;
        match sizes.len() > 8 {
            true => Err(error("a tensor has more than 8 axes")),
            false => Ok(sizes),
        }
    }

    /// `('storage', torch.FloatStorage, key, location, elements[, part])`
    fn persistent(&mut self, identity: Value) -> Result<(), ImportError> {
        let items = self.items_of(identity)?;
        let &[kind, Value::Function(Function::Storage(dtype)), key, ..] = items else {
            return Err(error("its pickle refers to something else than a storage"));
        };
        // A part of another storage: (own key, first element, elements).
        let offset = match items.get(5) {
            Some(&part @ Value::Node(_)) => match self.items_of(part)? {
                [_, Value::Int(offset), ..] => usize::try_from(*offset).ok(),
                _ => None,
            },
            _ => Some(0),
        };
        let (Value::Text(at, length), Some(offset)) = (key, offset) else {
            return Err(error("a storage has no key"));
        };
        if self.text(kind)? != "storage" {
            return Err(error("its pickle refers to something else than a storage"));
        }
        let key = (at, length);
        self.push_node(Node::Storage(Box::new(Storage { key, dtype, offset })))
    }

    fn call(&mut self, function: Value, arguments: Value) -> Result<(), ImportError> {
        let Value::Function(function) = function else {
            return Err(error("its pickle calls what is no function"));
        };
        let arguments = self.items_of(arguments)?;
        match function {
            // Of `OrderedDict([(key, value), …])`, as Python 2 wrote, the pairs are arguments.
            Function::Dict => match arguments.first() {
                Some(&Value::Node(list)) => self.dict_of_pairs(list),
                _ => self.push_node(Node::Dict(Vec::new())),
            },
            Function::Tensor => {
                let &[Value::Node(storage), Value::Int(offset), shape, strides, ..] = arguments
                else {
                    return Err(error("a tensor is built from other arguments than its own"));
                };
                let Node::Storage(storage) = &self.nodes[storage as usize] else {
                    return Err(error("a tensor is built from what is no storage"));
                };
                let storage = Storage::clone(storage);
                let offset = usize::try_from(offset).ok();
                let offset = offset.and_then(|offset| offset.checked_add(storage.offset));
                let tensor = TensorNode {
                    offset: offset.ok_or_else(|| error("a tensor begins before its storage"))?,
                    shape: self.sizes(shape)?,
                    strides: self.sizes(strides)?,
                    storage,
                };
                self.push_node(Node::Tensor(Box::new(tensor)))
            }
            Function::Parameter | Function::Size => {
                let first = arguments.first().copied();
                self.push(first.ok_or_else(|| error("a parameter is built from nothing"))?)
            }
            Function::Storage(_) | Function::Constant => {
                Err(error("its pickle calls what is only a name"))
            }
        }
    }

    fn dict_of_pairs(&mut self, list: u32) -> Result<(), ImportError> {
        let Node::List(pairs) = &self.nodes[list as usize] else {
            return Err(error(
                "a dictionary is built from something else than pairs",
            ));
        };
        let pair = |&pair: &Value| match self.items_of(pair) {
            Ok(&[key, value]) => Ok((key, value)),
            _ => Err(error(
                "a dictionary is built from something else than pairs",
            )),
        };
        let pairs = pairs.iter().map(pair).collect::<Result<Vec<_>, _>>()?;
        self.count_items(pairs.len())?;
        self.push_node(Node::Dict(pairs))
    }

    /// The value that the pickle stops with.
    pub(super) fn run(&mut self) -> Result<Value, ImportError> {
        loop {
            let [code] = self.array()?;
            if code == b'.' {
                return self.pop();
            }
            self.step(code)?;
        }
    }

    fn step(&mut self, code: u8) -> Result<(), ImportError> {
        match code {
            // Protocol and frame: nothing to do.
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),
            // Constants.
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))
            }
            b'K' => {
                let [value] = self.array()?;
                self.push(Value::Int(value.into()))
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))
            }
            b'I' | b'L' => {
                let line = self.line()?;
                let value = match self.text(line)? {
                    "00" => Value::Bool(false),
                    "01" => Value::Bool(true),
                    _ => Value::Int(self.number(line)?),
                };
                self.push(value)
            }
            0x8a => {
                let [length] = self.array()?;
                let value = self.long(length.into())?;
                self.push(value)
            }
            0x8b => {
                let length = self.length4()?;
                let value = self.long(length)?;
                self.push(value)
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Number)
            }
            b'F' => {
                self.line()?;
                self.push(Value::Number)
            }
            // Texts and bytes.
            b'X' | b'T' | b'B' => {
                let length = self.length4()?;
                let span = self.span(length)?;
                self.push(span)
            }
            0x8c | b'U' | b'C' => {
                let [length] = self.array()?;
                let span = self.span(length.into())?;
                self.push(span)
            }
            0x8d | 0x8e => {
                let length = u64::from_le_bytes(self.array()?);
                let length = usize::try_from(length).map_err(|_| error("its pickle is cut off"))?;
                let span = self.span(length)?;
                self.push(span)
            }
            b'V' => {
                let line = self.line()?;
                self.push(line)
            }
            // The stack.
            b'(' => {
                if self.marks.len() >= self.limits.stack {
                    return Err(error("its pickle opens more than its length allows"));
                }
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.pop()?;
                self.push(top)?;
                self.push(top)
            }
            // The memo.
            b'q' => {
                let [index] = self.array()?;
                self.remember(index.into())
            }
            b'r' => {
                let index = self.length4()?;
                self.remember(index)
            }
            0x94 => self.remember(self.memo.len()),
            b'p' => {
                let index = self.index_line()?;
                self.remember(index)
            }
            b'h' => {
                let [index] = self.array()?;
                self.recall(index.into())
            }
            b'j' => {
                let index = self.length4()?;
                self.recall(index)
            }
            b'g' => {
                let index = self.index_line()?;
                self.recall(index)
            }
            // Compound values.
            b')' => self.tuple(Vec::new()),
            0x85 => self.pop_tuple(1),
            0x86 => self.pop_tuple(2),
            0x87 => self.pop_tuple(3),
            b't' => {
                let items = self.pop_mark()?;
                self.tuple(items)
            }
            // Sets contain no named tensors; they are traversed like lists.
            b']' | 0x8f => self.push_node(Node::List(Vec::new())),
            b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push_node(Node::List(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.count_items(1)?;
                self.extend_list(std::vec![item])
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend_list(items)
            }
            b'}' => self.push_node(Node::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_mark()?;
                self.push_node(Node::Dict(Vec::new()))?;
                self.extend_dict(&items)
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.count_items(2)?;
                self.extend_dict(&[key, value])
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.extend_dict(&items)
            }
            // Names, calls and references.
            b'c' => {
                let module = self.line()?;
                let name = self.line()?;
                let function = self.function(module, name)?;
                self.push(function)
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let function = self.function(module, name)?;
                self.push(function)
            }
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let function = self.pop()?;
                self.call(function, arguments)
            }
            // State set after an object was built, such as a state dict's `_metadata`; it contains no weights.
            b'b' => self.pop().map(drop),
            b'Q' => {
                let identity = self.pop()?;
                self.persistent(identity)
            }
            other => Err(error(format!(
                "its pickle has the instruction {other:#04x}, which no state dict needs; nothing \
                 was run"
            ))),
        }
    }

    fn length4(&mut self) -> Result<usize, ImportError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn index_line(&mut self) -> Result<usize, ImportError> {
        let line = self.line()?;
        usize::try_from(self.number(line)?).map_err(|_| error("its pickle is damaged"))
    }

    /// An integer of any number of bytes.
    fn long(&mut self, length: usize) -> Result<Value, ImportError> {
        let bytes = self.take(length)?;
        if bytes.len() > 8 {
            return Ok(Value::Number);
        }
        let negative = bytes.last().is_some_and(|&last| last >= 0x80);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }
}
