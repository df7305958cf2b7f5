//! The teacher that a student asks when the answers are stored: rows by positioned reads, no model.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt as _;

use super::shard_file::{HEADER_END, header};
use super::spec::{Kind, Part};
use super::{CacheError, ShardState, TeacherCache};
use crate::model::StateReadout;
use crate::train::teacher::{TeacherOutput, TeacherStates};
use crate::train::{TopScores, TrainError, TrainingBatch};

/// Most files that are kept open.
const MAX_OPEN: usize = 128;

/// A teacher whose answers are read from a cache that was found complete.
pub struct CachedTeacher {
    cache: TeacherCache,
    parts: Vec<Part>,
    /// Digest of each shard as it was when it was found sound.
    digests: Vec<String>,
    item_embeddings: Option<Tensor>,
    readout: Option<StateReadout>,
    fingerprint: String,
    open: Mutex<HashMap<usize, File>>,
}

/// Rows that lie one after another in a shard.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    shard: usize,
    first: u64,
    rows: usize,
}

/// Values read so far, row after row.
#[derive(Default)]
struct Rows {
    states: Vec<Vec<f32>>,
    user_vectors: Vec<f32>,
    top_items: Vec<u32>,
    top_scores: Vec<f32>,
}

impl CachedTeacher {
    /// Opens a cache whose shards were just inspected: `states` are those of all shards, in order.
    /// The teacher's item embeddings `[N + 1, D]` are wanted only for logit distillation over the
    /// whole catalog.
    ///
    /// # Errors
    /// [`CacheError::Incomplete`] unless all shards are good.
    pub fn open(
        cache: TeacherCache,
        states: &[ShardState],
        item_embeddings: Option<Tensor>,
    ) -> Result<Self, CacheError> {
        let digests = cache.digests(states)?.into_iter().map(str::to_owned);
        let digests: Vec<String> = digests.collect();
        let layout = cache.layout();
        Ok(Self {
            parts: layout.spec().shape().parts(),
            // Stored values are rounded, so a run that began with a live teacher must not go on here.
            fingerprint: format!("{} as f16 {}", layout.spec().teacher, layout.key()),
            digests,
            item_embeddings,
            readout: None,
            open: Mutex::default(),
            cache,
        })
    }

    /// The same with the teacher's readout, for terms that read user vectors from inner states.
    #[must_use]
    pub fn with_readout(self, readout: Option<StateReadout>) -> Self {
        Self { readout, ..self }
    }

    /// The rows of flat positions of a batch, in their order, neighbours together.
    fn runs(&self, batch: &TrainingBatch, positions: &[u32]) -> Result<Vec<Run>, TrainError> {
        let (_, longest) = batch.histories.items.dims2()?;
        let mut runs: Vec<Run> = Vec::new();
        for &flat in positions {
            let (row, position) = (flat as usize / longest, flat as usize % longest);
            let known = batch.windows.get(row).zip(batch.histories.lengths.get(row));
            let Some((&window, &len)) = known.filter(|(_, len)| position < **len) else {
                return Err(CacheError::NotStored {
                    expected: format!("flat position {flat}"),
                    found: format!("a batch of {} histories", batch.windows.len()),
                }
                .into());
            };
            let layout = self.cache.layout();
            let (shard, first) = layout.address(window, position, position + 1 == len)?;
            match runs.last_mut() {
                Some(run) if run.shard == shard && run.first + run.rows as u64 == first => {
                    run.rows += 1;
                }
                _ => runs.push(Run {
                    shard,
                    first,
                    rows: 1,
                }),
            }
        }
        Ok(runs)
    }

    /// Reads one run. `blocks` says which stored states are wanted.
    fn read(&self, run: &Run, blocks: &[usize], rows: &mut Rows) -> Result<(), CacheError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let total = self.cache.layout().rows(run.shard);
        let mut start = HEADER_END;
        for part in &self.parts {
            let from = start + run.first * part.row_bytes;
            start += total * part.row_bytes;
            if part.kind == Kind::States && blocks.is_empty() {
                continue;
            }
            let mut bytes = vec![0u8; run.rows * part.row_bytes as usize];
            let file = self.file(&mut open, run.shard)?;
            (file.seek(SeekFrom::Start(from)))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(CacheError::io(self.cache.path(run.shard)))?;
            rows.add(part, &bytes, blocks);
        }
        Ok(())
    }

    /// A shard's file. One that is opened again must still have the header that was verified.
    fn file<'f>(
        &self,
        open: &'f mut MutexGuard<'_, HashMap<usize, File>>,
        shard: usize,
    ) -> Result<&'f mut File, CacheError> {
        if !open.contains_key(&shard) {
            let path = self.cache.path(shard);
            let mut file = File::open(&path).map_err(CacheError::io(&path))?;
            let mut found = vec![0u8; HEADER_END as usize];
            file.read_exact(&mut found).map_err(CacheError::io(&path))?;
            if found != header(self.cache.layout(), shard, &self.digests[shard]) {
                return Err(CacheError::Damaged {
                    path,
                    expected: format!("the tensors that were verified, {}", self.digests[shard]),
                    found: "a file that was changed since".to_owned(),
                });
            }
            if open.len() >= MAX_OPEN {
                open.clear();
            }
            open.insert(shard, file);
        }
        match open.get_mut(&shard) {
            Some(file) => Ok(file),
            None => Err(CacheError::io(self.cache.path(shard))(
                std::io::ErrorKind::NotFound.into(),
            )),
        }
    }
}

impl Rows {
    fn add(&mut self, part: &Part, bytes: &[u8], blocks: &[usize]) {
        match part.kind {
            Kind::TopItems => {
                let words = bytes.as_chunks::<4>().0.iter();
                self.top_items.extend(words.map(|b| u32::from_le_bytes(*b)));
            }
            Kind::UserVectors => append(&mut self.user_vectors, bytes),
            Kind::TopScores => append(&mut self.top_scores, bytes),
            Kind::States => {
                let width = 2 * part.dims[1];
                for row in bytes.chunks_exact(part.row_bytes as usize) {
                    for (values, block) in self.states.iter_mut().zip(blocks) {
                        append(values, &row[block * width..(block + 1) * width]);
                    }
                }
            }
        }
    }
}

/// Appends little-endian f16 values.
fn append(values: &mut Vec<f32>, bytes: &[u8]) {
    let halves: Vec<f16> = (bytes.as_chunks::<2>().0.iter())
        .map(|b| f16::from_le_bytes(*b))
        .collect();
    let start = values.len();
    values.resize(start + halves.len(), 0.0);
    halves.convert_to_f32_slice(&mut values[start..]);
}

impl TeacherStates for CachedTeacher {
    fn num_layers(&self) -> usize {
        self.cache.layout().spec().num_layers
    }

    fn hidden_size(&self) -> usize {
        self.cache.layout().spec().hidden_size
    }

    fn num_items(&self) -> usize {
        self.cache.layout().spec().items
    }

    fn item_embeddings(&self) -> Result<Tensor, TrainError> {
        self.item_embeddings.clone().ok_or_else(|| {
            CacheError::NotStored {
                expected: "the teacher's item embeddings".to_owned(),
                found: "a cache that was opened without them".to_owned(),
            }
            .into()
        })
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn read_out(&self, state: &Tensor) -> Result<Tensor, TrainError> {
        let Some(readout) = &self.readout else {
            return Err(CacheError::NotStored {
                expected: "how the teacher reads inner states out".to_owned(),
                found: "a cache that was opened without it".to_owned(),
            }
            .into());
        };
        Ok(readout.user_vectors(state)?)
    }

    fn at(
        &self,
        batch: &TrainingBatch,
        positions: &[u32],
        layers: &[usize],
    ) -> Result<TeacherOutput, TrainError> {
        let spec = self.cache.layout().spec();
        let block = |layer: &usize| {
            let stored = spec.layers.iter().position(|stored| stored == layer);
            stored.ok_or_else(|| CacheError::NotStored {
                expected: format!("the state after layer {layer}"),
                found: format!("layers {:?}", spec.layers),
            })
        };
        let blocks = layers.iter().map(block).collect::<Result<Vec<_>, _>>()?;
        let mut rows = Rows {
            states: vec![Vec::new(); blocks.len()],
            ..Rows::default()
        };
        for run in self.runs(batch, positions)? {
            self.read(&run, &blocks, &mut rows)?;
        }
        let device = batch.histories.items.device();
        let matrix = |values: Vec<f32>, width: usize| {
            Tensor::from_vec(values, (positions.len(), width), device)
        };
        Ok(TeacherOutput {
            states: (rows.states.into_iter())
                .map(|values| matrix(values, spec.hidden_size))
                .collect::<Result<_, _>>()?,
            user_vectors: matrix(rows.user_vectors, spec.item_dim)?,
            top: match spec.top_k {
                0 => None,
                k => Some(TopScores {
                    items: items(rows.top_items, positions.len(), k, spec.items, device)?,
                    scores: matrix(rows.top_scores, k)?,
                }),
            },
        })
    }
}

/// Item rows `[R, K]`, none outside the catalog.
fn items(
    values: Vec<u32>,
    rows: usize,
    k: usize,
    num_items: usize,
    device: &Device,
) -> Result<Tensor, TrainError> {
    if let Some(item) = values.iter().find(|&&i| i == 0 || i as usize > num_items) {
        return Err(CacheError::NotStored {
            expected: format!("items 1 to {num_items}"),
            found: format!("item {item}"),
        }
        .into());
    }
    Ok(Tensor::from_vec(values, (rows, k), device)?)
}
