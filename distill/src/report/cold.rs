//! What titles say about items that training never saw.

use maud::{Markup, html};
use slmrec_core::bootstrap::Interval;

use super::Gathered;
use super::sections::section;
use crate::cold::ColdRow;

const HEADS: [&str; 4] = [
    "HR@10, all items",
    "HR@50, all items",
    "HR@10, cold items",
    "HR@50, cold items",
];

pub(super) fn cold(gathered: &Gathered) -> Markup {
    let Some(report) = &gathered.cold else {
        let body = html! { p.note { "Not measured: " code { "slmrec-distill cold --titles minilm" } "." } };
        return section("cold", "Cold items", body);
    };
    let [items, targets] = report.choosing;
    let body = html! {
        p.note {
            (report.summary()) ". A SASRec that was trained without these items ranks them by vectors "
            "from their titles, after what each user chose before. Means over users, 95 % intervals."
        }
        table.stack {
            thead { tr { th { "System" } @for head in HEADS { th { (head) } } } }
            tbody { @for row in report.systems.iter().chain([&report.difference]) { (line(row)) } }
        }
        @if let Some(best) = report.tried.first() {
            p.soft {
                "The map: " (best.choice) ", the best of " (report.tried.len()) " on " (targets)
                " targets of " (items) " trained items (HR@10 " (format!("{:.4}", best.hr_10))
                ", mean cosine " (format!("{:.4}", best.cosine)) "). For use it was fitted on "
                (report.shipped.items) " items of " (report.shipped.table) "."
            }
        }
    };
    section("cold", "Cold items", body)
}

fn line(row: &ColdRow) -> Markup {
    let figures = [&row.all_10, &row.all_50, &row.cold_10, &row.cold_50];
    html! {
        tr {
            td { (row.system) }
            @for (head, Interval { mean, low, high }) in HEADS.iter().zip(figures) {
                td data-label=(head) {
                    span { (format!("{mean:.4}")) span.ci { (format!("{low:.4} to {high:.4}")) } }
                }
            }
        }
    }
}
