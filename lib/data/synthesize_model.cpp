#include "lib/data/synthesize_model.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lib/core/random.h"

namespace scrna::data {
namespace {

constexpr double kBaseSpread = 1.5;      // standard deviation of the logarithm of base rates
constexpr double kFreeGenes = 0.33;      // part of the genes in no program
constexpr double kActivePrograms = 0.3;  // part of the programs that a cell type switches on
constexpr double kActiveFold = 8.0;      // rate of a program that is on ...
constexpr double kInactiveFold = 0.06;   // ... and off
constexpr double kStateShare = 0.2;      // part of the cells, of any type, in which a state program is on
constexpr int64_t kStatePrograms = 2;    // the last programs are states (as the cell cycle is), not types
constexpr double kTypeSpread = 0.3;      // gene x cell type
constexpr double kDonorSpread = 0.15;    // gene x donor
constexpr double kActivitySpread = 0.3;  // program x cell
constexpr float kDropoutMean =
    0.05F;  // mean count at which half of the counts are lost, before the cell's factor
constexpr double kDropoutSpread = 0.5;
constexpr float kWalkLimit = 8.0F;  // above this mean, geometric variables are summed instead of a CDF walked

constexpr int kDepths = 128;
constexpr double kLowestDepth = 10, kDepthStep = 1.18;  // up to 1.2e10

// Streams of the model; `a` of the RandomStream.
enum Stream : uint64_t { kGenes = 1, kTypes, kTypeGenes, kDonorGenes, kDonorTypes, kCells, kLargeCounts };

RandomStream stream_of(uint64_t seed, Stream what, uint64_t item = 0) {
  return {seed, RandomPurpose::kSynthesize, what, item};
}

// Box-Muller, one of the pair.
double normal(const RandomStream& stream, uint64_t index) {
  const double u = 1.0 - stream.uniform(2 * index);  // (0, 1]
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * stream.uniform(2 * index + 1));
}

// A count given that it is not zero; v is uniform in [0, 1 - P(0)).
float small_count(float mean, float inverse_size, float zero, float v) {
  const float size = 1 / inverse_size;
  const float odds = mean * inverse_size / (1 + mean * inverse_size);
  float probability = zero;
  for (int k = 0; k < 1000; ++k) {
    const auto count = static_cast<float>(k);
    probability *= (count + size) / (count + 1) * odds;
    if (v < probability) return count + 1;
    v -= probability;
  }
  return 1000;  // below 1e-50 of the mass
}

// The same for large means: a negative-binomial count of size r is the sum of r geometric ones; zeros are
// drawn again.
float large_count(const RandomStream& stream, uint64_t first_index, float mean, float inverse_size) {
  const double log_odds = -std::log1p(1.0 / (double{mean} * inverse_size));
  const int size = static_cast<int>(std::lround(1 / inverse_size));
  for (uint64_t attempt = 0;; ++attempt) {
    double count = 0;
    for (int i = 0; i < size; ++i) {
      const double u = 1.0 - stream.uniform(first_index + 4 * attempt + static_cast<uint64_t>(i));
      count += std::floor(std::log(u) / log_odds);
    }
    if (count > 0) return static_cast<float>(std::min(count, 16777216.0));  // exact in float32
  }
}

}  // namespace

CellModel::CellModel(const SynthesizeOptions& options) : options_(options) {
  make_genes();
  make_cell_types();
  make_depth_table();
}

void CellModel::make_genes() {
  const RandomStream stream = stream_of(options_.seed, kGenes);
  const auto num_genes = static_cast<std::size_t>(options_.genes);
  for (uint64_t g = 0; g < num_genes; ++g) {
    const double choice = stream.uniform(8 * g);
    const auto program = static_cast<int64_t>((choice - kFreeGenes) / (1 - kFreeGenes) *
                                              static_cast<double>(options_.programs));
    gene_program_.push_back(static_cast<int32_t>(
        choice < kFreeGenes ? options_.programs : std::min(program, options_.programs - 1)));
    const uint64_t size = stream.below(4, 8 * g + 1);  // 1, 2, 2 or 4
    inverse_size_.push_back(size == 0 ? 1.0F : size == 3 ? 0.25F : 0.5F);
    base_rate_.push_back(static_cast<float>(std::exp(kBaseSpread * normal(stream, 4 * g + 1))));
  }
}

bool CellModel::is_active(int64_t cell_type, int64_t program) const {
  const int64_t num_type_programs = options_.programs - kStatePrograms;
  if (program >= num_type_programs) return false;
  // Every type has at least one program of its own as long as there are enough.
  return program == cell_type % num_type_programs ||
         stream_of(options_.seed, kTypes, static_cast<uint64_t>(cell_type))
                 .uniform(static_cast<uint64_t>(program)) < kActivePrograms;
}

void CellModel::make_cell_types() {
  const auto num_genes = static_cast<std::size_t>(options_.genes);
  type_rate_.resize(static_cast<std::size_t>(options_.cell_types) * num_genes);
  for (int64_t type = 0; type < options_.cell_types; ++type) {
    const RandomStream stream = stream_of(options_.seed, kTypeGenes, static_cast<uint64_t>(type));
    std::vector<double> fold(static_cast<std::size_t>(options_.programs) + 1, 1.0);
    for (int64_t program = 0; program < options_.programs; ++program) {
      fold[static_cast<std::size_t>(program)] = is_active(type, program) ? kActiveFold : kInactiveFold;
    }
    float* rate = type_rate_.data() + static_cast<std::size_t>(type) * num_genes;
    double sum = 0;
    for (std::size_t g = 0; g < num_genes; ++g) {
      rate[g] = static_cast<float>(base_rate_[g] * fold[static_cast<std::size_t>(gene_program_[g])] *
                                   std::exp(kTypeSpread * normal(stream, g)));
      sum += rate[g];
    }
    for (std::size_t g = 0; g < num_genes; ++g) rate[g] = static_cast<float>(rate[g] / sum);
  }
  donor_effect_.resize(static_cast<std::size_t>(options_.donors) * num_genes);
  for (int64_t donor = 0; donor < options_.donors; ++donor) {
    const RandomStream stream = stream_of(options_.seed, kDonorGenes, static_cast<uint64_t>(donor));
    for (std::size_t g = 0; g < num_genes; ++g) {
      donor_effect_[static_cast<std::size_t>(donor) * num_genes + g] =
          static_cast<float>(std::exp(kDonorSpread * normal(stream, g)));
    }
    const RandomStream shares = stream_of(options_.seed, kDonorTypes, static_cast<uint64_t>(donor));
    double sum = 0;
    for (int64_t type = 0; type < options_.cell_types; ++type) {
      sum += std::pow(static_cast<double>(type + 1), -0.7) *
             std::exp(0.4 * normal(shares, static_cast<uint64_t>(type)));
      type_share_.push_back(sum);
    }
    for (int64_t type = 0; type < options_.cell_types; ++type) {
      type_share_[static_cast<std::size_t>(donor * options_.cell_types + type)] /= sum;
    }
  }
}

void CellModel::make_depth_table() {
  const auto num_genes = static_cast<std::size_t>(options_.genes);
  for (int64_t type = 0; type < options_.cell_types; ++type) {
    const float* rate = type_rate_.data() + static_cast<std::size_t>(type) * num_genes;
    double depth = kLowestDepth;
    for (int i = 0; i < kDepths; ++i, depth *= kDepthStep) {
      double expressed = 0;
      for (std::size_t g = 0; g < num_genes; ++g) {
        const double mean = depth * rate[g];
        double zero = 1 / (1 + mean * inverse_size_[g]);
        if (inverse_size_[g] < 1.0F) zero *= zero;
        if (inverse_size_[g] < 0.5F) zero *= zero;
        expressed += (1 - zero) * mean / (mean + kDropoutMean);
      }
      depth_genes_.push_back(expressed);
    }
  }
}

double CellModel::wanted_genes(double draw) const {
  double genes = 0;
  if (options_.lengths == LengthDistribution::kCellxgene) {
    genes = std::clamp(std::exp2(10.75 + 1.25 * draw), 200.0, 16000.0);
  } else {
    genes = static_cast<double>(options_.median_genes) * std::exp(options_.genes_spread * draw);
  }
  return std::clamp(genes, 10.0, 0.9 * static_cast<double>(options_.genes));
}

double CellModel::depth_for(int32_t cell_type, double expressed_genes) const {
  const auto begin = depth_genes_.begin() + static_cast<std::ptrdiff_t>(cell_type) * kDepths;
  const auto above =
      std::clamp(std::lower_bound(begin, begin + kDepths, expressed_genes), begin + 1, begin + kDepths - 1);
  const double part =
      std::clamp((expressed_genes - *(above - 1)) / std::max(*above - *(above - 1), 1e-9), 0.0, 1.0);
  return kLowestDepth * std::pow(kDepthStep, static_cast<double>(above - begin - 1) + part);
}

CellModel::CellInfo CellModel::append(int64_t index, Scratch& scratch, CellBlock& out) const {
  const auto num_genes = static_cast<std::size_t>(options_.genes);
  const auto num_programs = static_cast<std::size_t>(options_.programs);
  const RandomStream cell = stream_of(options_.seed, kCells, static_cast<uint64_t>(index));
  const uint64_t gene_words = uint64_t{1}
                              << 20;  // draws below are the cell's own, from here on those of genes
  CellInfo info;
  info.donor = static_cast<int32_t>(cell.below(static_cast<uint64_t>(options_.donors), 0));
  const auto shares = type_share_.begin() + info.donor * options_.cell_types;
  info.cell_type = static_cast<int32_t>(
      std::upper_bound(shares, shares + options_.cell_types - 1, cell.uniform(1)) - shares);
  const auto depth = static_cast<float>(depth_for(info.cell_type, wanted_genes(normal(cell, 1))));
  const auto dropout = kDropoutMean * static_cast<float>(std::exp(kDropoutSpread * normal(cell, 2)));
  scratch.activity.assign(num_programs + 1, depth);
  for (std::size_t p = 0; p < num_programs; ++p) {
    double activity = std::exp(kActivitySpread * normal(cell, 8 + p));
    const bool is_state = p + kStatePrograms >= num_programs;
    if (is_state && cell.uniform(5000 + p) < kStateShare) activity *= kActiveFold / kInactiveFold;
    scratch.activity[p] = static_cast<float>(depth * activity);
  }

  scratch.mean.resize(num_genes);
  scratch.keep.resize(num_genes);
  scratch.zero.resize(num_genes);
  const float* rate = type_rate_.data() + static_cast<std::size_t>(info.cell_type) * num_genes;
  const float* effect = donor_effect_.data() + static_cast<std::size_t>(info.donor) * num_genes;
  for (std::size_t g = 0; g < num_genes; ++g) {
    const float mean = rate[g] * effect[g] * scratch.activity[static_cast<std::size_t>(gene_program_[g])];
    float zero = 1 / (1 + mean * inverse_size_[g]);
    zero = inverse_size_[g] < 1.0F ? zero * zero : zero;
    zero = inverse_size_[g] < 0.5F ? zero * zero : zero;
    scratch.mean[g] = mean;
    scratch.zero[g] = zero;
    scratch.keep[g] = mean / (mean + dropout);
  }
  const RandomStream large = stream_of(options_.seed, kLargeCounts, static_cast<uint64_t>(index));
  const std::size_t before = out.genes.size();
  for (std::size_t g = 0; g < num_genes; g += 4) {
    const auto words = cell.words(gene_words + g / 4);
    for (std::size_t i = 0; i < std::min<std::size_t>(4, num_genes - g); ++i) {
      const float u = static_cast<float>(words[i] >> 8) * 0x1p-24F;  // [0, 1)
      const float keep = scratch.keep[g + i], zero = scratch.zero[g + i], mean = scratch.mean[g + i];
      if (u >= (1 - zero) * keep) continue;
      const float count = mean < kWalkLimit ? small_count(mean, inverse_size_[g + i], zero, u / keep)
                                            : large_count(large, (g + i) << 12, mean, inverse_size_[g + i]);
      out.genes.push_back(static_cast<int32_t>(g + i));
      out.values.push_back(count);
      info.total_counts += static_cast<int64_t>(count);
    }
  }
  info.expressed_genes = static_cast<int64_t>(out.genes.size() - before);
  out.indptr.push_back(std::ssize(out.genes));
  return info;
}

}  // namespace scrna::data
