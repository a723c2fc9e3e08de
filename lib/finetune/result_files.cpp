#include "lib/finetune/result_files.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "lib/config/config.h"
#include "lib/core/csv.h"
#include "lib/core/files.h"
#include "lib/data/anndata.h"

namespace scrna::finetune {
namespace {

using Json = nlohmann::ordered_json;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

const char* words_of(Ending ending) {
  switch (ending) {
    case Ending::kRunning:
      return "running";
    case Ending::kLastEpoch:
      return "last epoch";
    case Ending::kEarly:
      return "early: no better macro F1";
    case Ending::kSignal:
      return "stopped by a signal";
    case Ending::kDiverged:
      return "diverged after the best epoch";
  }
  return "";
}

Json scores_json(const ClassificationReport& report) {
  Json out = {{"cells", report.cells},
              {"accuracy", report.accuracy},
              {"macro_f1", report.macro_f1},
              {"weighted_f1", report.weighted_f1},
              {"majority_accuracy", report.majority_accuracy}};
  for (const ClassScores& scores : report.classes)
    out["classes"].push_back({{"name", scores.name},
                              {"cells", scores.cells},
                              {"predicted", scores.predicted},
                              {"precision", scores.precision},
                              {"recall", scores.recall},
                              {"f1", scores.f1}});
  for (std::size_t i = 0; i < report.classes.size(); ++i) {
    Json row = Json::array();
    for (std::size_t j = 0; j < report.classes.size(); ++j) row.push_back(report.count(i, j));
    out["confusion"].push_back(row);
  }
  return out;
}

Json settings_json(const FinetuneConfig& config) {
  Json json = Json::object();
  for (const config::Entry& entry : config::entries(config)) {
    if (entry.is_section) continue;
    const Json value = Json::parse(entry.value, nullptr, /*allow_exceptions=*/false);
    json[entry.path] = value.is_number() || value.is_boolean() ? value : Json(entry.value);
  }
  json["files"] = config.files;
  json["ignored_labels"] = config.ignored_labels;
  return json;
}

std::string heldout_csv(const FinetuneResult& result, const LabelledCells& cells, const Labelling& labelling,
                        const Split& split, const std::vector<std::string>& names) {
  std::string text = "file,row,cell,label,predicted,probability,probability_of_label\n";
  const auto probabilities = result.best.probabilities.accessor<float, 2>();
  for (std::size_t i = 0; i < split.heldout.size(); ++i) {
    const LabelledCell& cell = cells.cells[static_cast<std::size_t>(split.heldout[i])];
    const auto row = probabilities[static_cast<int64_t>(i)];
    int64_t said = 0;
    for (int64_t c = 1; c < row.size(0); ++c)
      if (row[c] > row[said]) said = c;
    text += fmt::format("{},{},{},{},{},{:.7g},{:.7g}\n",
                        csv_field(labelling.files[static_cast<std::size_t>(cell.file)].file), cell.row,
                        csv_field(names[i]), csv_field(cells.classes[static_cast<std::size_t>(cell.label)]),
                        csv_field(cells.classes[static_cast<std::size_t>(said)]), row[said], row[cell.label]);
  }
  return text;
}

}  // namespace

std::vector<std::string> heldout_names(const LabelledCells& cells, const Labelling& labelling,
                                       const Split& split) {
  std::vector<std::vector<std::string>> of_file;
  for (const FileLabels& file : labelling.files) of_file.push_back(data::AnnDataFile(file.file).obs_index());
  std::vector<std::string> names;
  for (const int64_t member : split.heldout) {
    const LabelledCell& cell = cells.cells[static_cast<std::size_t>(member)];
    names.push_back(of_file[static_cast<std::size_t>(cell.file)].at(static_cast<std::size_t>(cell.row)));
  }
  return names;
}

std::string epoch_line(const Epoch& epoch) {
  return Json{{"epoch", epoch.epoch},
              {"step", epoch.steps},
              {"loss", number(epoch.training_loss)},
              {"heldout_loss", number(epoch.heldout_loss)},
              {"heldout_accuracy", epoch.report.accuracy},
              {"heldout_macro_f1", epoch.report.macro_f1},
              {"heldout_weighted_f1", epoch.report.weighted_f1},
              {"learning_rate", epoch.learning_rate},
              {"head_learning_rate", epoch.head_learning_rate},
              {"seconds", epoch.seconds},
              {"is_best", epoch.is_best}}
      .dump();
}

void write_results(const FinetuneResult& result, const LabelledCells& cells, const Labelling& labelling,
                   const Split& split, const std::vector<std::string>& names) {
  Json json = {{"program", result.classifier.program},
               {"ending", words_of(result.ending)},
               {"base",
                {{"checkpoint", result.classifier.base},
                 {"step", result.classifier.base_step},
                 {"weights_sha256", result.classifier.base_weights_sha256},
                 {"vocabulary_sha256", result.base_vocabulary_sha256}}},
               {"checkpoint", result.classifier.checkpoint},
               {"encoder_sha256", result.classifier.encoder_sha256},
               {"device", result.device},
               {"precision", result.precision},
               {"label", result.classifier.label},
               {"classes", result.classifier.classes},
               {"cells",
                {{"of_files", result.file_cells},
                 {"training", result.training_cells},
                 {"heldout", result.heldout_cells},
                 {"heldout_like_training", result.heldout_twins},
                 {"left_out",
                  {{"without_label", result.unlabelled},
                   {"ignored_labels", result.ignored},
                   {"without_group", result.without_group},
                   {"without_genes", result.without_genes},
                   {"rare_classes", result.rare_cells}}}}},
               {"rare_classes", result.rare_classes},
               {"held_groups", result.held_groups},
               {"epochs", result.epochs_done},
               {"best_epoch", result.best.epoch},
               {"seconds", result.seconds},
               {"heldout_loss", number(result.best.heldout_loss)},
               {"heldout", scores_json(result.best.report)},
               {"settings", settings_json(result.config)}};
  for (std::size_t i = 0; i < result.classifier.classes.size(); ++i)
    json["cells"]["training_of_class"][result.classifier.classes[i]] = result.training_cells_of_class[i];
  write_file_atomically(result.folder / "per_class.csv", per_class_csv(result.best.report));
  write_file_atomically(result.folder / "confusion.csv", confusion_csv(result.best.report));
  write_file_atomically(result.folder / "heldout_predictions.csv",
                        heldout_csv(result, cells, labelling, split, names));
  write_file_atomically(result.folder / "finetune.json",
                        json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace scrna::finetune
