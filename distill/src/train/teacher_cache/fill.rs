//! Running the teacher over the windows of a shard.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt as _;
use slmrec_core::ItemIndex;

use super::spec::{Kind, Part};
use super::{CacheError, TeacherCache, shard_file};
use crate::model::{HistoryBatch, Mode, ModelOutput, SequentialModel};
use crate::train::distillation::Positions;
use crate::train::{TopScores, TrainError, TrainingData};

/// Most items of one forward pass unless one history is longer: large enough for fast matrix
/// products, small enough for the activations of many layers.
pub const BATCH_ITEMS: usize = 1024;

/// One of n equal parts of the work, for as many machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillPart {
    number: usize,
    of: usize,
}

impl FillPart {
    /// All of it.
    pub const ALL: Self = Self { number: 1, of: 1 };

    /// Part `number` (from 1) of `of`.
    ///
    /// # Errors
    /// [`CacheError::Part`] unless `1 <= number <= of`.
    pub fn new(number: usize, of: usize) -> Result<Self, CacheError> {
        if (1..=of).contains(&number) {
            return Ok(Self { number, of });
        }
        Err(CacheError::Part {
            found: format!("{number}/{of}"),
        })
    }

    /// Whether a shard (from 0) belongs to it: the shards are dealt out in turn.
    #[must_use]
    pub fn has(self, shard: usize) -> bool {
        shard % self.of == self.number - 1
    }
}

impl FromStr for FillPart {
    type Err = CacheError;

    fn from_str(text: &str) -> Result<Self, CacheError> {
        let parsed = text
            .split_once('/')
            .and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((number, of)) => Self::new(number, of),
            None => Err(CacheError::Part {
                found: text.to_owned(),
            }),
        }
    }
}

/// Computes shards.
pub struct Filler<'a> {
    /// Where they go.
    pub cache: &'a TeacherCache,
    /// The windows.
    pub data: &'a TrainingData,
    /// The teacher.
    pub teacher: &'a dyn SequentialModel,
    /// Stops the work before the next forward pass when it becomes true.
    pub stop: &'a AtomicBool,
    /// Most items of one forward pass, padding included; usually [`BATCH_ITEMS`].
    pub batch_items: usize,
}

impl Filler<'_> {
    /// Computes a shard and writes it whole or not at all. `progress` is told the number of rows
    /// (stored positions) after every forward pass.
    ///
    /// # Errors
    /// [`CacheError::Overflow`], [`CacheError::Interrupted`], [`CacheError::Io`], all within
    /// [`TrainError::TeacherCache`]; whatever the teacher reports.
    pub fn fill(&self, shard: usize, progress: &mut dyn FnMut(u64)) -> Result<(), TrainError> {
        let layout = self.cache.layout();
        let dir = self.cache.dir();
        std::fs::create_dir_all(dir).map_err(CacheError::io(dir))?;
        let mut tensors = ShardTensors::new(layout.spec().shape().parts(), layout.rows(shard));
        for windows in self.batches(shard) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(CacheError::Interrupted.into());
            }
            let rows = self.run(shard, &windows, &mut tensors)?;
            progress(rows);
        }
        let path = self.cache.path(shard);
        Ok(shard_file::write(&path, layout, shard, &tensors.bytes)?)
    }

    fn history(&self, window: usize) -> &[ItemIndex] {
        match self.data.items(window) {
            [history @ .., _target] => history,
            [] => &[],
        }
    }

    /// The windows of a shard by length, so that little is padding; the same on every machine.
    fn batches(&self, shard: usize) -> Vec<Vec<usize>> {
        let mut windows: Vec<usize> = self.cache.layout().shards()[shard].clone().collect();
        windows.sort_by_key(|&window| self.history(window).len());
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for window in windows {
            // Ascending, so this one is the longest so far.
            let len = self.history(window).len();
            match batches.last_mut() {
                Some(batch) if (batch.len() + 1) * len <= self.batch_items => batch.push(window),
                _ => batches.push(vec![window]),
            }
        }
        batches
    }

    fn run(
        &self,
        shard: usize,
        windows: &[usize],
        tensors: &mut ShardTensors,
    ) -> Result<u64, TrainError> {
        let spec = self.cache.layout().spec();
        let histories: Vec<&[ItemIndex]> = windows.iter().map(|&w| self.history(w)).collect();
        let table = self.teacher.item_embeddings()?;
        let batch = HistoryBatch::new(&histories, table.device())?;
        let output = (self.teacher).forward(&batch, Mode::Eval, &spec.layers)?;
        let places = self.places(shard, windows, &batch, &output)?;
        let sources: Vec<u32> = places.iter().map(|place| place.source).collect();
        let sources = Tensor::new(sources.as_slice(), table.device())?;
        let users = flat_rows(&output.user_vectors, &sources)?;
        tensors.put(Kind::UserVectors, 0, "the user vector", &places, &users)?;
        for (block, (layer, state)) in spec.layers.iter().zip(&output.states).enumerate() {
            let what = format!("the state after layer {layer}");
            let state = flat_rows(state, &sources)?;
            tensors.put(Kind::States, block, &what, &places, &state)?;
        }
        if spec.top_k > 0 {
            let top = TopScores::of(&users, &table, spec.top_k)?;
            tensors.put(Kind::TopScores, 0, "a score", &places, &top.scores)?;
            tensors.put_items(&places, &top.items)?;
        }
        Ok(places.len() as u64)
    }

    /// Where each stored position of the batch comes from and goes to.
    fn places(
        &self,
        shard: usize,
        windows: &[usize],
        batch: &HistoryBatch,
        output: &ModelOutput,
    ) -> Result<Vec<Place>, TrainError> {
        let layout = self.cache.layout();
        let (_, longest) = batch.items.dims2()?;
        let (_, found, _) = output.user_vectors.dims3()?;
        let mut places = Vec::new();
        for (row, (&window, &len)) in windows.iter().zip(&batch.lengths).enumerate() {
            let target = layout.row_in_shard(shard, window) as usize;
            let place = |position: usize, column: usize, target: usize| Place {
                window,
                position,
                source: (row * found + column) as u32,
                target,
            };
            match layout.spec().positions {
                Positions::All if found == longest => {
                    places.extend((0..len).map(|p| place(p, p, target + p)));
                }
                Positions::Last if found == longest => {
                    places.push(place(len - 1, len - 1, target));
                }
                Positions::Last if found == 1 => places.push(place(len - 1, 0, target)),
                _ => {
                    return Err(TrainError::Readout {
                        positions: longest,
                        found,
                    });
                }
            }
        }
        Ok(places)
    }
}

/// `[B, S, W]` to the chosen rows `[R, W]`, f32, with no graph behind them.
fn flat_rows(values: &Tensor, rows: &Tensor) -> Result<Tensor, TrainError> {
    let (histories, positions, width) = values.dims3()?;
    let flat = values.detach().reshape((histories * positions, width))?;
    Ok(flat.index_select(rows, 0)?.to_dtype(DType::F32)?)
}

/// A position: of which window, from which row of the output, to which row of the shard.
struct Place {
    window: usize,
    position: usize,
    source: u32,
    target: usize,
}

/// The tensors of a shard in file order.
struct ShardTensors {
    parts: Vec<Part>,
    /// Where each part begins.
    starts: Vec<usize>,
    bytes: Vec<u8>,
}

impl ShardTensors {
    fn new(parts: Vec<Part>, rows: u64) -> Self {
        let mut starts = Vec::with_capacity(parts.len());
        let mut end = 0;
        for part in &parts {
            starts.push(end);
            end += (rows * part.row_bytes) as usize;
        }
        Self {
            parts,
            starts,
            bytes: vec![0; end],
        }
    }

    /// The bytes of column block `block`, `width` bytes wide, of a row.
    fn cell(&mut self, kind: Kind, row: usize, block: usize, width: usize) -> &mut [u8] {
        let index = self.parts.iter().position(|part| part.kind == kind);
        let Some(index) = index else {
            return &mut [];
        };
        let start = self.starts[index] + row * self.parts[index].row_bytes as usize + block * width;
        &mut self.bytes[start..start + width]
    }

    /// Stores `values [R, W]` as f16.
    fn put(
        &mut self,
        kind: Kind,
        block: usize,
        what: &str,
        places: &[Place],
        values: &Tensor,
    ) -> Result<(), TrainError> {
        let (rows, width) = values.dims2()?;
        self.check_width(kind, block, rows, width * 2, places)?;
        let values: Vec<f32> = values.flatten_all()?.to_vec1()?;
        let mut halves = vec![f16::ZERO; width];
        for (place, values) in places.iter().zip(values.chunks_exact(width)) {
            halves.convert_from_f32_slice(values);
            if let Some(at) = halves.iter().position(|half| !half.is_finite()) {
                return Err(CacheError::Overflow {
                    what: what.to_owned(),
                    window: place.window,
                    position: place.position,
                    value: values[at],
                }
                .into());
            }
            let cell = self.cell(kind, place.target, block, width * 2);
            for (bytes, half) in cell.chunks_exact_mut(2).zip(&halves) {
                bytes.copy_from_slice(&half.to_le_bytes());
            }
        }
        Ok(())
    }

    fn put_items(&mut self, places: &[Place], items: &Tensor) -> Result<(), TrainError> {
        let (rows, width) = items.dims2()?;
        self.check_width(Kind::TopItems, 0, rows, width * 4, places)?;
        let items: Vec<u32> = items.flatten_all()?.to_vec1()?;
        for (place, items) in places.iter().zip(items.chunks_exact(width)) {
            let cell = self.cell(Kind::TopItems, place.target, 0, width * 4);
            for (bytes, item) in cell.chunks_exact_mut(4).zip(items) {
                bytes.copy_from_slice(&item.to_le_bytes());
            }
        }
        Ok(())
    }

    /// Refuses a teacher that is not the one of the spec.
    fn check_width(
        &self,
        kind: Kind,
        block: usize,
        rows: usize,
        width: usize,
        places: &[Place],
    ) -> Result<(), TrainError> {
        let blocks = |part: &&Part| part.kind == kind;
        let row_bytes = self.parts.iter().find(blocks).map_or(0, |p| p.row_bytes) as usize;
        let blocks = match kind {
            Kind::States => row_bytes / width.max(1),
            _ => 1,
        };
        if width > 0 && rows == places.len() && block < blocks && blocks * width == row_bytes {
            return Ok(());
        }
        Err(CacheError::NotStored {
            expected: format!("{} rows of {row_bytes} bytes of {kind:?}", places.len()),
            found: format!("{rows} rows of {width} bytes from the teacher"),
        }
        .into())
    }
}
