//! What Python gives: ids, histories, filters.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyString};
use slmrec_core::History;
use slmrec_runtime::FilterOptions;

/// Ids of any iterable. Integers are taken as ids, as in history files.
///
/// # Errors
/// `TypeError` for anything else: a lone string would be read letter by letter.
pub(crate) fn ids(given: &Bound<'_, PyAny>, what: &str) -> PyResult<Vec<String>> {
    list(given, what, "item ids")
}

/// Texts (or integers) of any iterable; `of` says what they are.
fn list(given: &Bound<'_, PyAny>, what: &str, of: &str) -> PyResult<Vec<String>> {
    if given.is_instance_of::<PyString>() || given.is_instance_of::<PyBytes>() {
        let message = format!("{what}: expected a list of {of}, found one string");
        return Err(PyTypeError::new_err(message));
    }
    let items = given.try_iter().map_err(|_| {
        let found = type_name(given);
        PyTypeError::new_err(format!("{what}: expected a list of {of}, found {found}"))
    })?;
    let numbered = items.enumerate();
    let ids = numbered.map(|(at, item)| id(&item?, || format!("{what}[{at}]")));
    ids.collect()
}

/// One id.
///
/// # Errors
/// `TypeError` for what is neither a string nor an integer.
pub(crate) fn id(given: &Bound<'_, PyAny>, what: impl Fn() -> String) -> PyResult<String> {
    if let Ok(text) = given.cast::<PyString>() {
        return Ok(text.to_str()?.to_owned());
    }
    // NumPy's integers are not Python's, but they have an index, too.
    if !given.is_instance_of::<PyBool>()
        && let Ok(number) = given.call_method0("__index__")
    {
        return number.str()?.to_str().map(str::to_owned);
    }
    let found = type_name(given);
    let message = format!("{}: expected a string or an integer, found {found}", what());
    Err(PyTypeError::new_err(message))
}

/// A history, oldest first.
///
/// # Errors
/// As [`ids`].
pub(crate) fn history(given: &Bound<'_, PyAny>, what: &str) -> PyResult<History> {
    ids(given, what).map(History::from_items)
}

/// Which items may be recommended: block and allow lists, categories, blocked categories, whether
/// seen items are.
#[derive(FromPyObject)]
pub(crate) struct Filter<'py>(
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
    Bound<'py, PyAny>,
    bool,
);

impl Filter<'_> {
    /// The same for the runtime.
    ///
    /// # Errors
    /// As [`ids`].
    pub(crate) fn options(&self) -> PyResult<FilterOptions> {
        let Self(block, allow, categories, block_categories, include_seen) = self;
        let names = |given, what| list(given, what, "categories");
        let categories = categories.as_ref();
        Ok(FilterOptions {
            include_seen: *include_seen,
            block: ids(block, "block")?,
            allow: allow
                .as_ref()
                .map(|allow| ids(allow, "allow"))
                .transpose()?,
            categories: categories
                .map(|given| names(given, "categories"))
                .transpose()?,
            block_categories: names(block_categories, "block_categories")?,
        })
    }
}

fn type_name(given: &Bound<'_, PyAny>) -> String {
    let name = given.get_type().name();
    name.map_or_else(|_| "another type".to_owned(), |name| name.to_string())
}
