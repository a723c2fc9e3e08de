#include "lib/report/page.h"

#include <utility>

#include <fmt/format.h>

#include "lib/core/error.h"
#include "lib/core/files.h"

namespace scrna::report {
namespace {

constexpr std::string_view kStyle = R"(
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:28px 20px 64px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:18px;margin:40px 0 12px;padding-top:12px;border-top:1px solid var(--grid)}
p{margin:8px 0;max-width:76ch}
.subtitle,.muted{color:var(--muted)}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:28px 32px;margin:16px 0}
.figures.wide{grid-template-columns:1fr}
.figures.narrow{grid-template-columns:repeat(auto-fill,minmax(min(100%,310px),1fr));gap:24px}
figure{margin:0;break-inside:avoid;min-width:0}
figcaption{color:var(--muted);font-size:13px;line-height:1.4;margin-top:4px;max-width:66ch}
svg.figure{display:block;width:100%;height:auto}
.figures.wide svg.figure{max-width:1080px}
.scroll{overflow-x:auto;margin:12px 0}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:5px 14px 5px 0;text-align:right;border-bottom:1px solid var(--grid)}
th{font-weight:600;color:var(--muted);vertical-align:bottom}
th.text,td.text{text-align:left}
th.section{color:var(--ink);padding-top:16px;white-space:normal}
td.wrap{white-space:normal;min-width:16ch}td.tight{white-space:normal}
.good{color:var(--s2)}.bad{color:var(--s5)}.warn{color:var(--s4)}
.verdict{border-left:4px solid var(--axis);padding:2px 0 2px 14px;margin:14px 0;break-inside:avoid;max-width:84ch}
.verdict.good{border-color:var(--s2)}.verdict.bad{border-color:var(--s5)}.verdict.open{border-color:var(--s4)}
.verdict b{display:block}.verdict.good b{color:var(--s2)}.verdict.bad b{color:var(--s5)}.verdict.open b{color:var(--s4)}
.verdict span{display:block;color:var(--ink)}.verdict small{display:block;color:var(--muted);font-size:13px}
@media (max-width:480px){th,td{padding-right:10px}}
details{margin:12px 0}summary{cursor:pointer;color:var(--muted)}
pre{font:12.5px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-x:auto;margin:8px 0}
@media print{body{font-size:11pt}main{max-width:none;padding:0}h2{break-after:avoid}.figures{gap:14px 20px}details::details-content{content-visibility:visible}details>pre{white-space:pre-wrap}}
)";

}  // namespace

void Page::heading(const std::string& words) { body_ += fmt::format("<h2>{}</h2>\n", escape(words)); }

void Page::paragraph(const std::string& words, const std::string& css_class) {
  body_ += fmt::format("<p{}>{}</p>\n", css_class.empty() ? "" : fmt::format(" class=\"{}\"", css_class),
                       escape(words));
}

void Page::verdict(const std::string& word, const std::string& claim, const std::string& reason,
                   const std::string& css_class) {
  body_ += fmt::format("<div class=\"verdict {}\"><b>{}</b><span>{}</span><small>{}</small></div>\n",
                       css_class, escape(word), escape(claim), escape(reason));
}

void Page::figures(std::vector<Figure> figures, Width width) {
  if (figures.empty()) return;
  body_ += fmt::format("<div class=\"figures{}\">\n", width == Width::kWhole   ? " wide"
                                                       : width == Width::kThird ? " narrow"
                                                                                : "");
  for (Figure& figure : figures) {
    body_ += fmt::format("<figure id=\"{}\">\n{}<figcaption>{}</figcaption></figure>\n", escape(figure.name),
                         figure.svg.inline_text(figure.caption), escape(figure.caption));
    figures_.push_back(std::move(figure));
  }
  body_ += "</div>\n";
}

void Page::table(const Table& table) {
  body_ += "<div class=\"scroll\"><table><thead><tr>";
  const auto css = [&](std::size_t column, const std::string& more) {
    std::string all = column < table.num_text_columns ? "text" : "";
    if (!more.empty()) all += (all.empty() ? "" : " ") + more;
    return all.empty() ? std::string() : fmt::format(" class=\"{}\"", all);
  };
  for (std::size_t i = 0; i < table.head.size(); ++i)
    body_ += fmt::format("<th{}>{}</th>", css(i, ""), escape(table.head[i]));
  body_ += "</tr></thead><tbody>\n";
  for (const auto& row : table.rows) {
    if (row.size() == 1 && table.head.size() > 1) {
      body_ += fmt::format("<tr><th class=\"text section\" colspan=\"{}\">{}</th></tr>\n", table.head.size(),
                           escape(row[0].text));
      continue;
    }
    body_ += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i)
      body_ += fmt::format("<td{}>{}</td>", css(i, row[i].css_class), escape(row[i].text));
    body_ += "</tr>\n";
  }
  body_ += "</tbody></table></div>\n";
}

void Page::details(const std::string& summary, const std::string& text) {
  body_ +=
      fmt::format("<details><summary>{}</summary><pre>{}</pre></details>\n", escape(summary), escape(text));
}

void Page::fold(const std::string& summary, const std::function<void()>& content) {
  body_ += fmt::format("<details><summary>{}</summary>\n", escape(summary));
  content();
  body_ += "</details>\n";
}

std::string Page::html() const {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<meta name=\"color-scheme\" "
      "content=\"light dark\">\n"
      "<title>{}</title>\n<style>\n{}{}</style></head>\n<body><main>\n<h1>{}</h1>\n<p "
      "class=\"subtitle\">{}</p>\n{}</main></body></html>\n",
      escape(title_), figure_style(":root"), kStyle, escape(title_), escape(subtitle_), body_);
}

void Page::write(const std::filesystem::path& file) const {
  if (file.has_parent_path()) {
    std::error_code problem;
    std::filesystem::create_directories(file.parent_path(), problem);
  }
  const std::filesystem::path folder = file.parent_path() / (file.stem().string() + "-figures");
  std::error_code problem;
  std::filesystem::create_directories(folder, problem);
  if (problem) throw DataError("{}: cannot be made: {}", folder.string(), problem.message());
  for (const auto& entry : std::filesystem::directory_iterator(folder))  // of an earlier page of that name
    if (entry.path().extension() == ".svg") std::filesystem::remove(entry.path(), problem);
  for (const Figure& figure : figures_)
    write_file_atomically(folder / (figure.name + ".svg"), figure.svg.file_text(figure.caption));
  write_file_atomically(file, html());
}

}  // namespace scrna::report
