//! The report in a headless browser: nothing beyond the edge of a phone's or a desk's window, no
//! complaint on the console. `cargo xtask test` names the browser, or says that it has none.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The program that opens pages.
const BROWSER_VARIABLE: &str = "SLMREC_TEST_BROWSER";
/// Window widths in pixels: a phone and a desk.
const WIDTHS: [u32; 2] = [360, 1280];
/// Notes on the root element how wide the page is and which elements stand beyond the window, unless
/// they scroll within their own box, and which hide a part of themselves.
const PROBE: &str = r#"<script>
const scrolls = e => { for (let p = e.parentElement; p; p = p.parentElement)
  if (['auto', 'scroll'].includes(getComputedStyle(p).overflowX)) return true; return false; };
const name = e => e.tagName + '.' + e.getAttribute('class');
const all = [...document.querySelectorAll('body *')].filter(e => !e.closest('svg'));
const beyond = all.filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e));
const hidden = all.filter(e => ['hidden', 'clip'].includes(getComputedStyle(e).overflowX)
  && e.clientWidth > 1 && e.scrollWidth > e.clientWidth + 1); // 1: for screen readers only
document.documentElement.setAttribute('data-probe', encodeURIComponent(JSON.stringify({
  window: innerWidth, page: document.documentElement.scrollWidth,
  beyond: beyond.map(name), hidden: hidden.map(name) })));
</script>"#;

/// What a browser finds wrong with a page at one width.
fn faults(browser: &str, page: &str, folder: &Path, width: u32) -> Vec<String> {
    let probed = folder.join("probed.html");
    let (body, end) = page.rsplit_once("</body>").expect("a body");
    fs::write(&probed, format!("{body}{PROBE}</body>{end}")).expect("a page");
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"])
        .args(["--enable-logging=stderr", "--virtual-time-budget=1000"])
        .arg(format!("--window-size={width},900"))
        .arg(format!("file://{}", probed.display()))
        .output()
        .expect("the browser starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{browser}: {said}");
    let mut faults: Vec<String> = (said.lines())
        .filter(|line| line.contains("CONSOLE"))
        .map(str::to_owned)
        .collect();
    let dom = String::from_utf8_lossy(&output.stdout);
    let probe = dom.split("data-probe=\"").nth(1).expect("the probe ran");
    let probe = percent_decoded(probe.split('"').next().unwrap_or_default());
    let probe: Value = serde_json::from_str(&probe).expect("what the probe found");
    assert_eq!(probe["window"], width, "the window has the width asked for");
    if probe["page"].as_u64() > Some(u64::from(width)) {
        faults.push(format!("the page is {} wide", probe["page"]));
    }
    for kind in ["beyond", "hidden"] {
        let elements = probe[kind].as_array().expect("elements");
        faults.extend(elements.iter().map(|element| format!("{kind}: {element}")));
    }
    faults
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let code: Vec<u8> = rest.by_ref().take(2).collect();
            let code = std::str::from_utf8(&code).expect("a code");
            bytes.push(u8::from_str_radix(code, 16).expect("a code"));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// Opens a page at every width.
pub(super) fn shows_all_of(page: &Path) {
    let Ok(browser) = std::env::var(BROWSER_VARIABLE) else {
        eprintln!("{BROWSER_VARIABLE} is not set: the report was not opened in a browser");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let text = fs::read_to_string(page).expect("the page");
    for width in WIDTHS {
        let found = faults(&browser, &text, folder.path(), width);
        assert_eq!(found, [""; 0], "at {width} pixels");
        let wide = "<div class=\"wide\" style=\"width: 2000px\">x</div>";
        let broken = text.replace("</body>", &format!("{wide}</body>"));
        let found = faults(&browser, &broken, folder.path(), width).join("\n");
        assert!(
            found.contains("DIV.wide"),
            "a wide element is found: {found}"
        );
    }
    let complaining = text.replace("</body>", "<script>nothing.here()</script></body>");
    let found = faults(&browser, &complaining, folder.path(), WIDTHS[0]).join("\n");
    assert!(
        found.contains("nothing is not defined"),
        "an error is found: {found}"
    );
}
