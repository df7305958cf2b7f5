//! `slmrec-run watch`: pick titles, see recommendations.

use std::io::{self, IsTerminal};

use super::filter;
use crate::arguments::WatchArguments;
use crate::watch::adviser::ByRecommender;
use crate::watch::terminal;

pub(crate) fn run(arguments: &WatchArguments) -> anyhow::Result<bool> {
    anyhow::ensure!(
        io::stdin().is_terminal() && io::stdout().is_terminal(),
        "watch needs a terminal: standard input or output is none; hint: `slmrec-run history.json` \
         answers without one"
    );
    let filter = filter::given(&arguments.filter)?;
    let (recommender, engine, _) = super::open(&arguments.bundle, &arguments.engine)?;
    let filter = filter::known(filter, &recommender);
    let about = format!(
        "{}: {} items, {engine}",
        recommender.manifest().data.name,
        recommender.vocabulary().len()
    );
    let mut adviser = ByRecommender::new(recommender, arguments.top.get(), filter);
    terminal::run(about, &mut adviser)?;
    Ok(true)
}
