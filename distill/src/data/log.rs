//! The interactions of a file in the order of the file, as small numbers.

use std::collections::HashMap;
use std::path::Path;

use super::categories::Splitter;
use super::columns::InteractionColumns;
use super::error::Fault;
use super::layout::Layout;
use super::report::BadLines;
use super::rows::{Cell, CellKind};
use super::time::Time;
use super::{DataError, PrepareSettings};

/// Ids numbered in the order of their first occurrence.
#[derive(Debug, Default)]
pub(super) struct Interner {
    numbers: HashMap<Box<str>, u32>,
}

impl Interner {
    fn number(&mut self, id: &str) -> Option<u32> {
        if let Some(&number) = self.numbers.get(id) {
            return Some(number);
        }
        let number = u32::try_from(self.numbers.len()).ok()?;
        self.numbers.insert(id.into(), number);
        Some(number)
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn get(&self, id: &str) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    /// The ids by number.
    pub(super) fn into_ids(self) -> Vec<Box<str>> {
        let mut ids = vec![Box::default(); self.numbers.len()];
        for (id, number) in self.numbers {
            ids[number as usize] = id;
        }
        ids
    }
}

/// What is said about an item beyond its id.
#[derive(Debug, Default)]
pub(super) struct About {
    pub(super) title: Option<String>,
    pub(super) categories: Vec<String>,
}

impl About {
    /// Takes what is not known yet: the first title counts, and the first categories.
    pub(super) fn learn(&mut self, title: Option<&str>, categories: Vec<String>) {
        if self.title.is_none() {
            self.title = title.map(str::to_owned);
        }
        if self.categories.is_empty() {
            self.categories = categories;
        }
    }
}

/// All interactions kept while reading.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) users: Interner,
    pub(super) items: Interner,
    /// User number of each interaction, in file order.
    pub(super) user: Vec<u32>,
    /// Item number of each interaction.
    pub(super) item: Vec<u32>,
    /// Whole units of each time; empty where the source has no times.
    pub(super) time: Vec<i64>,
    /// Billionths of each time; empty unless one has them.
    pub(super) billionths: Vec<u32>,
    /// What is said about items, by their number, where the source says something.
    pub(super) about: HashMap<u32, About>,
    pub(super) below_min_rating: u64,
    pub(super) bad_lines: BadLines,
}

/// Turns rows into interactions.
pub(super) struct Collector<'s> {
    path: &'s Path,
    layout: &'s Layout,
    columns: InteractionColumns,
    settings: &'s PrepareSettings,
    splitter: Splitter,
    kinds: Kinds,
    pub(super) log: Log,
}

/// The kind of the first value of each column that must keep to one kind, and its line.
#[derive(Default)]
struct Kinds([Option<(CellKind, u64)>; 3]);

const USER: usize = 0;
const ITEM: usize = 1;
const TIME: usize = 2;

/// Why a row is no interaction: a fault that may be skipped, or the end of the run.
enum Refusal {
    Fault(Fault),
    Fatal(DataError),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl<'s> Collector<'s> {
    pub(super) fn new(
        path: &'s Path,
        layout: &'s Layout,
        columns: InteractionColumns,
        settings: &'s PrepareSettings,
    ) -> Self {
        Self {
            path,
            layout,
            columns,
            settings,
            splitter: Splitter::new(layout, settings),
            kinds: Kinds::default(),
            log: Log::default(),
        }
    }

    /// Takes a row: cells in the order of [`InteractionColumns::wanted`].
    pub(super) fn row(
        &mut self,
        line: u64,
        row: Result<&[Cell<'_>], Fault>,
    ) -> Result<(), DataError> {
        match row
            .map_err(Refusal::Fault)
            .and_then(|cells| self.interaction(line, cells))
        {
            Ok(()) => Ok(()),
            Err(Refusal::Fault(fault)) if self.settings.skip_bad_lines => {
                self.log.bad_lines.add(line, &fault);
                Ok(())
            }
            Err(Refusal::Fault(fault)) => Err(fault.at(self.path, line)),
            Err(Refusal::Fatal(error)) => Err(error),
        }
    }

    fn interaction(&mut self, line: u64, cells: &[Cell<'_>]) -> Result<(), Refusal> {
        let (mut user_digits, mut item_digits) = (String::new(), String::new());
        let mut optional = cells[2..].iter();
        let name = |column: usize| self.layout.columns[column].as_str();
        let fault = |column: usize| move |f: Fault| Refusal::Fault(f.in_column(name(column)));

        let (user, user_kind) = cells[0]
            .id(&mut user_digits)
            .map_err(fault(self.columns.user))?;
        let (item, item_kind) = cells[1]
            .id(&mut item_digits)
            .map_err(fault(self.columns.item))?;
        let time = match (
            self.columns.time,
            self.columns.time.and_then(|_| optional.next()),
        ) {
            (Some(column), Some(cell)) => Some(cell.time().map_err(fault(column))?),
            _ => None,
        };
        let rating = match (
            self.columns.rating,
            self.columns.rating.and_then(|_| optional.next()),
        ) {
            (Some(column), Some(cell)) => Some(cell.number().map_err(fault(column))?),
            _ => None,
        };
        let title = match (
            self.columns.title,
            self.columns.title.and_then(|_| optional.next()),
        ) {
            (Some(column), Some(cell)) => cell.title().map_err(fault(column))?,
            _ => None,
        };
        let categories = match (
            self.columns.categories,
            self.columns.categories.and_then(|_| optional.next()),
        ) {
            (Some(column), Some(cell)) => self.splitter.read(cell).map_err(fault(column))?,
            _ => Vec::new(),
        };

        self.same_kind(USER, self.columns.user, user_kind, line)?;
        self.same_kind(ITEM, self.columns.item, item_kind, line)?;
        if let (Some(column), Some((_, kind))) = (self.columns.time, time) {
            self.same_kind(TIME, column, kind, line)?;
        }
        if let (Some(rating), Some(least)) = (rating, self.settings.min_rating)
            && rating < least
        {
            self.log.below_min_rating += 1;
            return Ok(());
        }
        let item = (self.push(user, item, time.map(|(time, _)| time))).map_err(Refusal::Fatal)?;
        if title.is_some() || !categories.is_empty() {
            (self.log.about.entry(item).or_default()).learn(title, categories);
        }
        Ok(())
    }

    fn same_kind(
        &mut self,
        slot: usize,
        column: usize,
        kind: CellKind,
        line: u64,
    ) -> Result<(), Refusal> {
        let (expected, first_line) = *self.kinds.0[slot].get_or_insert((kind, line));
        if expected == kind {
            return Ok(());
        }
        Err(Refusal::Fatal(DataError::MixedTypes {
            path: self.path.to_owned(),
            line,
            column: self.layout.columns[column].clone(),
            expected: expected.name(),
            first_line,
            found: kind.name(),
        }))
    }

    /// Adds an interaction; the number of its item.
    fn push(&mut self, user: &str, item: &str, time: Option<Time>) -> Result<u32, DataError> {
        let log = &mut self.log;
        let too_many = |what| DataError::TooMany {
            path: self.path.to_owned(),
            what,
            limit: u64::from(u32::MAX),
        };
        if log.user.len() >= u32::MAX as usize {
            return Err(too_many("interactions"));
        }
        let user = log.users.number(user).ok_or_else(|| too_many("users"))?;
        let item = log.items.number(item).ok_or_else(|| too_many("items"))?;
        if let Some(time) = time {
            if time.billionths != 0 && log.billionths.is_empty() {
                log.billionths = vec![0; log.time.len()];
            }
            if time.billionths != 0 || !log.billionths.is_empty() {
                log.billionths.push(time.billionths);
            }
            log.time.push(time.whole);
        }
        log.user.push(user);
        log.item.push(item);
        Ok(item)
    }
}
