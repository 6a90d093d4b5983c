//! The table of `optimize` for documents.

use crate::latex::escaped as in_latex;
use crate::markdown::escaped as in_markdown;

/// A table with the text around it.
pub(super) struct Parts {
    /// What was optimized, and in which run.
    pub(super) caption: String,
    /// The run, by which LaTeX refers to the table.
    pub(super) run: String,
    /// Settings of the board.
    pub(super) operating_point: Option<String>,
    /// Names of the columns.
    pub(super) headings: [&'static str; 8],
    /// Cells by line.
    pub(super) records: Vec<[String; 8]>,
    /// What the mark of a line means.
    pub(super) legend: &'static str,
    /// Power model and conclusion.
    pub(super) sentences: Vec<String>,
}

/// The table with all that is around it.
pub(super) fn markdown(parts: &Parts) -> String {
    let mut out = format!("- {}\n", in_markdown(&parts.caption));
    if let Some(point) = &parts.operating_point {
        out.extend(["- operating point: ", &in_markdown(point), "\n"]);
    }
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    out += "\n";
    out += &row(parts.headings.map(str::to_owned).to_vec());
    out += "|---|---|--:|--:|--:|--:|--:|--:|\n";
    for record in &parts.records {
        out += &row(record.iter().map(|cell| in_markdown(cell)).collect());
    }
    out.extend(["\n", &in_markdown(parts.legend), "\n"]);
    for sentence in &parts.sentences {
        out.extend(["\n", &in_markdown(sentence), "\n"]);
    }
    out
}

/// The table alone.
pub(super) fn latex(parts: &Parts) -> String {
    let row = |cells: Vec<String>| format!("{} \\\\\n", cells.join(" & "));
    let mut out = String::from("% Needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}.\n");
    out += "\\begin{table}[htbp]\n\\centering\\small\n";
    out.extend(["\\caption{", &in_latex(&parts.caption), ".}\n\\smallskip\n"]);
    out.extend(["\\label{tab:", &parts.run, "}\n"]);
    out += "\\begin{tabular}{@{}clrrrrrr@{}}\n\\toprule\n";
    out += &row(parts.headings.iter().map(|name| in_latex(name)).collect());
    out += "\\midrule\n";
    for record in &parts.records {
        // A star after a line's end would be taken for its variant.
        out.extend(["{}", &row(record.iter().map(|cell| in_latex(cell)).collect())]);
    }
    out += "\\bottomrule\n\\end{tabular}\n";
    for remark in std::iter::once(parts.legend).chain(parts.sentences.iter().map(String::as_str)) {
        out.extend(["\\par\\smallskip\\footnotesize ", &in_latex(remark), "\n"]);
    }
    out + "\\end{table}\n"
}
