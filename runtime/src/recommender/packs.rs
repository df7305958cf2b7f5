//! Packs: what changes the answers of an opened bundle without a new model.

use std::collections::HashMap;
use std::path::Path;

use slmrec_core::pack::{NEW_ITEMS_MEMBER, NEW_TABLE_MEMBER, RETIRED_MEMBER};
use slmrec_core::{ItemIndex, NewItems, Pack};

use super::Recommender;
use super::prior::Prior;
use crate::error::RuntimeError;

impl Recommender {
    /// Lets a pack change the answers; several apply in order. Its prior takes the place of the one
    /// before (unless the bundle was opened without), its new items stand behind those that are there, what it retires is never recommended
    /// again (it may still be part of a history, and be scored when it is asked for by name).
    ///
    /// New items are items like others: they are ranked, have titles, and the encoder reads them in
    /// a history, since it is given rows of the item table. The prior has counted nothing about them.
    ///
    /// # Errors
    /// A file that is not a pack of this bundle, new items that are there already, retired ones that
    /// are not; the recommender is then as it was.
    pub fn apply_pack(&mut self, path: &Path) -> Result<(), RuntimeError> {
        let mut pack = Pack::open(path, &self.bundle)?;
        let prior = pack.prior()?;
        let weights = pack.manifest().prior.as_ref().map(|entry| entry.weights);
        let new = pack.new_items()?;
        let retired = self.retired_by(&mut pack, new.as_ref())?;
        if let Some(NewItems { items, table }) = new {
            (self.vocabulary.append(items)).map_err(|fault| {
                let expected = "items that the catalog does not have";
                pack.misfit(NEW_ITEMS_MEMBER, expected, fault.to_string())
            })?;
            // The pack's reader has compared dimension and row type.
            (self.table.append(table)).map_err(|fault| {
                pack.misfit(
                    NEW_TABLE_MEMBER,
                    "rows like the bundle's",
                    fault.to_string(),
                )
            })?;
            self.item_packs.push(pack.sha256().to_owned());
        }
        self.retired.extend(retired);
        if let Some(prior) = Prior::new(prior, weights).filter(|_| self.wants_prior) {
            self.prior = Some(prior);
        }
        Ok(())
    }

    /// Rows of the items that a pack retires, its own new ones among them.
    fn retired_by(
        &self,
        pack: &mut Pack,
        new: Option<&NewItems>,
    ) -> Result<Vec<ItemIndex>, RuntimeError> {
        let new = new.iter().flat_map(|new| &new.items);
        let behind = self.vocabulary.len() as u32 + 1..;
        let new: HashMap<&str, ItemIndex> = new
            .zip(behind)
            .map(|(item, row)| (item.id.as_str(), ItemIndex(row)))
            .collect();
        let ids = pack.retired()?;
        let rows = ids.iter().map(|id| {
            let row = (self.vocabulary.index_of(id)).or_else(|| new.get(id.as_str()).copied());
            row.ok_or_else(|| {
                let found = format!("{id:?}");
                RuntimeError::from(pack.misfit(RETIRED_MEMBER, "ids of the catalog", found))
            })
        });
        rows.collect()
    }

    /// SHA-256 of the packs whose items stand behind the bundle's, in the order in which they were
    /// applied.
    #[must_use]
    pub fn item_packs(&self) -> &[String] {
        &self.item_packs
    }
}
