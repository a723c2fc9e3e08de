// What `evaluate` was asked for, from words to lists: which files with which columns, and which models under which names.
// A word about one of several files begins with that file and a colon, "B.h5ad:cell_type"; without it, it is about all.
#pragma once

#include <string>
#include <vector>

#include "lib/eval/evaluation_data.h"

namespace scrna::app {

struct DataSetWords {
  std::vector<std::string> files;             // paths or patterns
  std::vector<std::string> labels, batches;   // [FILE:]COLUMN
  std::vector<std::string> unlabelled;        // FILE
  std::vector<std::string> excluded_labels;   // [FILE:]VALUE
  eval::CellChoice common;                    // of all: numbers and seed
};

struct DataSet {
  std::string file;
  std::string name;  // its name without the end; the path where two would be alike
  eval::CellChoice choice;
  std::vector<std::string> excluded_if_there;  // values of --exclude-label that were not tied to a file
};

/// One data set for each file, in their order. Throws ConfigError: no file, a file twice, a word about a file that is not among
/// them, two words of a kind about the same file, a file with neither a label column nor --no-label, or both; DataError for
/// a path or pattern without a file.
std::vector<DataSet> data_sets_of(const DataSetWords& words);

struct ModelWords {
  std::vector<std::string> checkpoints;
  std::vector<std::string> names;   // none, or one for each of `checkpoints`
  std::vector<std::string> groups;  // NAME=PATH,PATH...
};

struct NamedCheckpoint {
  std::string name, group, path;  // group may be empty
};

/// Single checkpoints, then those of groups, which are called "GROUP 1", "GROUP 2" in their order. Throws ConfigError: as many
/// names as checkpoints are expected, a group without NAME= or without paths, a path or a name twice.
std::vector<NamedCheckpoint> checkpoints_of(const ModelWords& words);

}  // namespace scrna::app
