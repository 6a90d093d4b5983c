//! The paper's table for LaTeX: a document that compiles as it is, or the table alone for `\input`.

use super::paper::Paper;
use super::streams;
use analysis::Report;

const PREAMBLE: &str = r"\documentclass{article}
\usepackage[T1]{fontenc}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage[utf8]{inputenc}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage{booktabs}
\pagestyle{empty}
\begin{document}
";

/// A whole document.
pub(super) fn document(report: &Report) -> String {
    document_of(&table(report))
}

/// A document with this table.
pub(super) fn document_of(table: &str) -> String {
    format!("{PREAMBLE}{table}\\end{{document}}\n")
}

/// The table alone.
pub(super) fn table(report: &Report) -> String {
    let paper = Paper::of(report);
    // The names of network and pipeline to the left, figures to the right.
    let columns = paper.columns();
    let kinds: String = columns
        .iter()
        .map(|name| if matches!(name.as_str(), "network" | "pipeline") { 'l' } else { 'r' })
        .collect();
    let row = |cells: Vec<String>| format!("{} \\\\\n", cells.join(" & "));
    let mut out = String::from("% Needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}.\n");
    out += "\\begin{table}[htbp]\n\\centering\\small\n";
    out.extend(["\\caption{", &escaped(&paper.caption), "}\n\\smallskip\n"]);
    out.extend(["\\label{tab:", &report.run.id, "}\n"]);
    out.extend(["\\begin{tabular}{@{}", &kinds, "@{}}\n\\toprule\n"]);
    out += &row(columns.iter().map(|name| escaped(name)).collect());
    out += "\\midrule\n";
    for line in &paper.lines {
        out += &row(paper.cells(line).iter().map(|cell| escaped(cell)).collect());
    }
    out += "\\bottomrule\n\\end{tabular}\n";
    for remark in &paper.remarks {
        out.extend(["\\par\\smallskip\\footnotesize ", &escaped(remark), "\n"]);
    }
    out + "\\end{table}\n" + &stream_table(report)
}

/// The table of streams; empty without one.
fn stream_table(report: &Report) -> String {
    let rows = streams::rows(report);
    let Some(first) = rows.first() else { return String::new() };
    let row = |cells: Vec<String>| format!("{} \\\\\n", cells.join(" & "));
    let caption = format!("Latency from the scheduled arrival under {}.", first.load);
    let mut out = String::from("\\begin{table}[htbp]\n\\centering\\small\n");
    out.extend(["\\caption{", &escaped(&caption), "}\n\\smallskip\n"]);
    out.extend(["\\label{tab:", &report.run.id, "-stream}\n"]);
    out += "\\begin{tabular}{@{}llrrrrrrrr@{}}\n\\toprule\n";
    let names = std::iter::once("network").chain(streams::COLUMNS);
    out += &row(names.map(escaped).collect());
    out += "\\midrule\n";
    for stream in &rows {
        let cells = std::iter::once(stream.network.clone()).chain(streams::cells(stream));
        out += &row(cells.map(|cell| escaped(&cell)).collect());
    }
    out += "\\bottomrule\n\\end{tabular}\n";
    for sentence in streams::legend(report) {
        out.extend(["\\par\\smallskip\\footnotesize ", &escaped(&sentence), "\n"]);
    }
    out + "\\end{table}\n"
}

/// Text that LaTeX prints unchanged. Letters beyond Latin-1 are more than its standard fonts have.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', character]),
            '\\' => out += "\\textbackslash{}",
            '~' => out += "\\textasciitilde{}",
            '^' => out += "\\textasciicircum{}",
            '<' => out += "\\textless{}",
            '>' => out += "\\textgreater{}",
            '|' => out += "\\textbar{}",
            '"' => out += "\\textquotedbl{}",
            '`' => out += "\\textasciigrave{}",
            '\'' => out += "\\textquotesingle{}",
            // A bracket after a line's end would be taken for its argument.
            '[' | ']' => out.extend(['{', character, '}']),
            // Two of them would become a dash.
            '-' if out.ends_with('-') => out += "{}-",
            '×' => out += "$\\times$",
            '±' => out += "$\\pm$",
            '÷' => out += "$\\div$",
            'µ' | 'μ' => out += "$\\mu$",
            '→' => out += "$\\rightarrow$",
            '–' => out += "--",
            '…' => out += "\\dots{}",
            ' '..='~' | 'À'..='ÿ' => out.push(character),
            character if character.is_whitespace() => out.push(' '),
            character if character.is_control() => {}
            _ => out.push('?'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn everything_special_is_escaped() {
        for (text, set) in [
            ("a_b & 50 % $x$ #1 {y}", "a\\_b \\& 50 \\% \\$x\\$ \\#1 \\{y\\}"),
            ("cpu0[0..2] > cpu1", "cpu0{[}0..2{]} \\textgreater{} cpu1"),
            ("\\end{table} ~^", "\\textbackslash{}end\\{table\\} \\textasciitilde{}\\textasciicircum{}"),
            ("1.9× – é 網\u{7}", "1.9$\\times$ -- é ?"),
            ("2-1 --", "2-1 -{}-"),
        ] {
            assert_eq!(escaped(text), set);
        }
    }
}
