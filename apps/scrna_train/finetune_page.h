// The results of `finetune` as a page (lib/report): scores, the confusion matrix as a picture, classes as a table, epochs.
#pragma once

#include <vector>

#include "lib/finetune/result_files.h"
#include "lib/report/page.h"

namespace scrna::app {

report::Page finetune_page(const finetune::FinetuneResult& result);

}  // namespace scrna::app
