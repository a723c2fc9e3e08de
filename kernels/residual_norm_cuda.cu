// A team of 1, 2 or 4 warps owns a row: lane l of the team takes octets l, l + lanes, ... (16-byte accesses
// of a warp side by side), at most four of them, so a row of up to 1,024 columns lives in the registers of
// one warp and its two reductions are shuffles. Teams of several warps exchange their sums through shared
// memory. Forward: one row per team. Backward: 396 blocks (3 per multiprocessor of an H100, a constant, so
// that sums have the same order everywhere) walk the rows and keep the two column sums of their columns in
// registers.
#include <algorithm>

#include "kernels/column_sums_cuda.h"
#include "kernels/device/dropout_mask.h"
#include "kernels/device/named_barrier.h"
#include "kernels/residual_norm_cuda.h"

namespace scrna::kernels {
namespace {

using device::kOctet;
using device::Octet;

constexpr int kMaxOctets = 4;  // of one lane
constexpr int kForwardWarps = 8;
constexpr int kBackwardWarps = 4;
constexpr int kBackwardBlocksPerProcessor = 3;
constexpr int64_t kBackwardBlocks = 396;

/// Where this thread stands: kTeam warps share a row.
template <int kTeam, int kOctets>
struct Place {
  int team = static_cast<int>(threadIdx.x) / (32 * kTeam);
  int lane = static_cast<int>(threadIdx.x) % (32 * kTeam);

  /// Octet i of this lane, as an index in the row.
  [[nodiscard]] __device__ __forceinline__ int octet(int i) const { return lane + i * 32 * kTeam; }
};

/// Sums of two values over a team, the same in all its lanes. `exchange` has two rounds, used in turn, so
/// that one barrier is enough.
template <int kTeam, int kWarps>
__device__ __forceinline__ float2 team_sum(float2 value, float2 (&exchange)[2][kWarps], int team,
                                           int& round) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    value.x += __shfl_xor_sync(~0U, value.x, step);
    value.y += __shfl_xor_sync(~0U, value.y, step);
  }
  if constexpr (kTeam > 1) {
    if (threadIdx.x % 32 == 0) exchange[round][threadIdx.x / 32] = value;
    device::named_sync(1 + team, 32 * kTeam);
    value = exchange[round][team * kTeam];
#pragma unroll
    for (int w = 1; w < kTeam; ++w) {
      value.x += exchange[round][team * kTeam + w].x;
      value.y += exchange[round][team * kTeam + w].y;
    }
    round ^= 1;
  }
  return value;
}

template <class Stream, class Branch, int kTeam, int kOctets>
__global__ void __launch_bounds__(kForwardWarps * 32)
    forward_kernel(const __grid_constant__ ResidualNormForward call) {
  __shared__ float2 exchange[2][kForwardWarps];
  const Place<kTeam, kOctets> place;
  const int64_t row = int64_t{blockIdx.x} * (kForwardWarps / kTeam) + place.team;
  if (row >= call.shape.num_rows) return;
  const int num_octets = static_cast<int>(call.shape.width / kOctet);
  const int64_t first = row * call.shape.width;
  const auto* h = static_cast<const Stream*>(call.h) + first;
  float values[kOctets][kOctet];
#pragma unroll
  for (int i = 0; i < kOctets; ++i)
    if (place.octet(i) < num_octets) device::load_octet(h + place.octet(i) * kOctet, values[i]);
  if (call.x != nullptr) {
    const auto* x = static_cast<const Branch*>(call.x) + first;
    Octet<Branch> added[kOctets];
#pragma unroll
    for (int i = 0; i < kOctets; ++i)
      if (place.octet(i) < num_octets) added[i] = Octet<Branch>::load(x + place.octet(i) * kOctet);
    const device::TokenMask mask(call.shape.mask, row);
    auto* h_out = static_cast<Stream*>(call.h_out) + first;
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      if (place.octet(i) >= num_octets) continue;
      float branch[kOctet];
      added[i].unpack_to(branch);
      mask.apply(place.octet(i), branch);
#pragma unroll
      for (int j = 0; j < kOctet; ++j) values[i][j] += branch[j];
      const auto rounded = Octet<Stream>::of(values[i]);
      rounded.store(h_out + place.octet(i) * kOctet);
      rounded.unpack_to(values[i]);
    }
  }
  int round = 0;
  const float inverse_width = 1.0F / static_cast<float>(call.shape.width);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kOctets; ++i)
    if (place.octet(i) < num_octets)
#pragma unroll
      for (int j = 0; j < kOctet; ++j) sum += values[i][j];
  const float mean = team_sum<kTeam>(make_float2(sum, 0), exchange, place.team, round).x * inverse_width;
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kOctets; ++i)
    if (place.octet(i) < num_octets)
#pragma unroll
      for (int j = 0; j < kOctet; ++j) squares = fmaf(values[i][j] - mean, values[i][j] - mean, squares);
  const float variance =
      team_sum<kTeam>(make_float2(squares, 0), exchange, place.team, round).x * inverse_width;
  const float rstd = 1.0F / sqrtf(variance + call.epsilon);
  if (place.lane == 0) {
    call.mean[row] = mean;
    call.rstd[row] = rstd;
  }
  auto* y = static_cast<Branch*>(call.y) + first;
#pragma unroll
  for (int i = 0; i < kOctets; ++i) {
    if (place.octet(i) >= num_octets) continue;
    float gamma[kOctet];
    float beta[kOctet];
    device::load_octet(call.gamma + place.octet(i) * kOctet, gamma);
    device::load_octet(call.beta + place.octet(i) * kOctet, beta);
#pragma unroll
    for (int j = 0; j < kOctet; ++j) values[i][j] = fmaf((values[i][j] - mean) * rstd, gamma[j], beta[j]);
    device::store_octet(y + place.octet(i) * kOctet, values[i]);
  }
}

/// Adds the block's column sums team after team in shared memory and writes its partial row.
template <int kTeam, int kOctets>
__device__ __forceinline__ void store_partials(const Place<kTeam, kOctets>& place, int num_octets,
                                               const float (&d_gamma)[kOctets][kOctet],
                                               const float (&d_beta)[kOctets][kOctet], float* partials) {
  __shared__ float sums[2][kTeam * 32 * kOctets * kOctet];
  const int width = num_octets * kOctet;
  for (int turn = 0; turn < kBackwardWarps / kTeam; ++turn) {
    if (place.team == turn) {
#pragma unroll
      for (int i = 0; i < kOctets; ++i) {
        if (place.octet(i) >= num_octets) continue;
#pragma unroll
        for (int j = 0; j < kOctet; ++j) {
          // Slot (i, j, lane) instead of the column: lanes side by side, without bank conflicts.
          const int slot = (i * kOctet + j) * 32 * kTeam + place.lane;
          sums[0][slot] = turn == 0 ? d_gamma[i][j] : sums[0][slot] + d_gamma[i][j];
          sums[1][slot] = turn == 0 ? d_beta[i][j] : sums[1][slot] + d_beta[i][j];
        }
      }
    }
    __syncthreads();
  }
  for (int column = static_cast<int>(threadIdx.x); column < width; column += kBackwardWarps * 32) {
    const int octet = column / kOctet;
    const int slot = (octet / (32 * kTeam) * kOctet + column % kOctet) * 32 * kTeam + octet % (32 * kTeam);
    partials[column] = sums[0][slot];
    partials[width + column] = sums[1][slot];
  }
}

template <class Stream, class Branch, int kTeam, int kOctets>
__global__ void __launch_bounds__(kBackwardWarps * 32, kBackwardBlocksPerProcessor)
    backward_kernel(const __grid_constant__ ResidualNormBackward call) {
  __shared__ float2 exchange[2][kBackwardWarps];
  constexpr int kTeams = kBackwardWarps / kTeam;
  constexpr bool kLoadEarly = kOctets * sizeof(Stream) <= 12;  // what 168 registers hold without spills
  const Place<kTeam, kOctets> place;
  const int num_octets = static_cast<int>(call.shape.width / kOctet);
  const float inverse_width = 1.0F / static_cast<float>(call.shape.width);
  float d_gamma[kOctets][kOctet] = {};
  float d_beta[kOctets][kOctet] = {};
  int round = 0;
  for (int64_t row = int64_t{blockIdx.x} * kTeams + place.team; row < call.shape.num_rows;
       row += int64_t{gridDim.x} * kTeams) {
    const int64_t first = row * call.shape.width;
    const auto* d_y_row = static_cast<const Branch*>(call.d_y) + first;
    const auto* h_row = static_cast<const Stream*>(call.h_out) + first;
    Octet<Branch> d_y[kOctets];
    Octet<Stream> h[kOctets];
    Octet<Stream> d_h_out[kOctets] = {};
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      if (place.octet(i) >= num_octets) continue;
      if (kLoadEarly && call.d_h_out != nullptr)
        d_h_out[i] =
            Octet<Stream>::load(static_cast<const Stream*>(call.d_h_out) + first + place.octet(i) * kOctet);
      d_y[i] = Octet<Branch>::load(d_y_row + place.octet(i) * kOctet);
      h[i] = Octet<Stream>::load(h_row + place.octet(i) * kOctet);
    }
    const float mean = call.mean[row];
    const float rstd = call.rstd[row];
    float2 sums = make_float2(0, 0);  // of g and g xhat
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      if (place.octet(i) >= num_octets) continue;
      float dy[kOctet], value[kOctet], gamma[kOctet];
      d_y[i].unpack_to(dy);
      h[i].unpack_to(value);
      device::load_octet(call.gamma + place.octet(i) * kOctet, gamma);
#pragma unroll
      for (int j = 0; j < kOctet; ++j) {
        const float normal = (value[j] - mean) * rstd;
        const float g = dy[j] * gamma[j];
        sums.x += g;
        sums.y = fmaf(g, normal, sums.y);
        d_gamma[i][j] = fmaf(dy[j], normal, d_gamma[i][j]);
        d_beta[i][j] += dy[j];
      }
    }
    sums = team_sum<kTeam>(sums, exchange, place.team, round);
    const float mean_g = sums.x * inverse_width;
    const float mean_g_normal = sums.y * inverse_width;
    const device::TokenMask mask(call.d_x == nullptr ? DropoutMask{} : call.shape.mask, row);
#pragma unroll
    for (int i = 0; i < kOctets; ++i) {
      if (place.octet(i) >= num_octets) continue;
      float dy[kOctet], value[kOctet], gamma[kOctet], d_h[kOctet];
      if (!kLoadEarly && call.d_h_out != nullptr)
        d_h_out[i] =
            Octet<Stream>::load(static_cast<const Stream*>(call.d_h_out) + first + place.octet(i) * kOctet);
      d_h_out[i].unpack_to(d_h);
      d_y[i].unpack_to(dy);
      h[i].unpack_to(value);
      device::load_octet(call.gamma + place.octet(i) * kOctet, gamma);
#pragma unroll
      for (int j = 0; j < kOctet; ++j) {
        const float normal = (value[j] - mean) * rstd;
        d_h[j] += rstd * (dy[j] * gamma[j] - mean_g - normal * mean_g_normal);
      }
      device::store_octet(static_cast<Stream*>(call.d_h) + first + place.octet(i) * kOctet, d_h);
      if (call.d_x == nullptr) continue;
      mask.apply(place.octet(i), d_h);
      device::store_octet(static_cast<Branch*>(call.d_x) + first + place.octet(i) * kOctet, d_h);
    }
  }
  store_partials(place, num_octets, d_gamma, d_beta,
                 call.partials + int64_t{blockIdx.x} * 2 * call.shape.width);
}

int64_t num_octets(const ResidualNormShape& shape) { return shape.width / kOctet; }

/// Warps that share a row.
int team_of(const ResidualNormShape& shape) {
  const int64_t warps = (num_octets(shape) + 32 * kMaxOctets - 1) / (32 * kMaxOctets);
  return warps <= 1 ? 1 : warps == 2 ? 2 : 4;
}

int64_t backward_blocks(const ResidualNormShape& shape) {
  const int teams = kBackwardWarps / team_of(shape);
  return std::min<int64_t>((shape.num_rows + teams - 1) / teams, kBackwardBlocks);
}

template <class Stream, class Branch, int kTeam, int kOctets>
void launch(const ResidualNormForward& call, cudaStream_t stream) {
  constexpr int kTeams = kForwardWarps / kTeam;
  const auto blocks = static_cast<unsigned>((call.shape.num_rows + kTeams - 1) / kTeams);
  forward_kernel<Stream, Branch, kTeam, kOctets><<<blocks, kForwardWarps * 32, 0, stream>>>(call);
}
template <class Stream, class Branch, int kTeam, int kOctets>
void launch(const ResidualNormBackward& call, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(backward_blocks(call.shape));
  backward_kernel<Stream, Branch, kTeam, kOctets><<<blocks, kBackwardWarps * 32, 0, stream>>>(call);
}

/// Teams of several warps are only used with three or four octets per lane: up to 1,024 columns one warp is
/// enough.
template <class Stream, class Branch, class Call>
void launch_width(const Call& call, cudaStream_t stream) {
  const int team = team_of(call.shape);
  const int64_t octets = (num_octets(call.shape) + 32 * team - 1) / (32 * team);
  if (team == 1 && octets == 1)
    launch<Stream, Branch, 1, 1>(call, stream);
  else if (team == 1 && octets == 2)
    launch<Stream, Branch, 1, 2>(call, stream);
  else if (team == 1 && octets == 3)
    launch<Stream, Branch, 1, 3>(call, stream);
  else if (team == 1)
    launch<Stream, Branch, 1, 4>(call, stream);
  else if (team == 2)
    launch<Stream, Branch, 2, 4>(call, stream);
  else
    launch<Stream, Branch, 4, 4>(call, stream);
}

template <class Call>
cudaError_t launch_types(const Call& call, cudaStream_t stream) {
  if (call.shape.branch_type == ElementType::kFloat32)
    launch_width<float, float>(call, stream);
  else if (call.shape.stream_type == ElementType::kFloat32)
    launch_width<float, __nv_bfloat16>(call, stream);
  else
    launch_width<__nv_bfloat16, __nv_bfloat16>(call, stream);
  return cudaGetLastError();
}

}  // namespace

const char* residual_norm_unsupported(const ResidualNormShape& shape) {
  const bool same = shape.stream_type == shape.branch_type && shape.stream_type != ElementType::kFloat16;
  const bool mixed =
      shape.stream_type == ElementType::kFloat32 && shape.branch_type == ElementType::kBFloat16;
  if (!same && !mixed) return "the kernel takes fp32, bf16, or branches in bf16 on a stream in fp32";
  if (shape.width % kOctet != 0) return "the kernel takes widths that are multiples of 8";
  if (shape.width == 0 || shape.width > kMaxResidualNormWidth)
    return "the kernel takes widths from 8 to 4,096";
  return nullptr;
}

size_t residual_norm_workspace_bytes(const ResidualNormShape& shape) {
  return static_cast<size_t>(backward_blocks(shape) * 2 * shape.width) * sizeof(float);
}

cudaError_t residual_norm_forward_cuda(const ResidualNormForward& call, cudaStream_t stream) {
  if (residual_norm_unsupported(call.shape) != nullptr) return cudaErrorInvalidValue;
  return call.shape.num_rows == 0 ? cudaSuccess : launch_types(call, stream);
}

cudaError_t residual_norm_backward_cuda(const ResidualNormBackward& call, cudaStream_t stream) {
  if (residual_norm_unsupported(call.shape) != nullptr) return cudaErrorInvalidValue;
  if (call.shape.num_rows > 0) {
    const cudaError_t error = launch_types(call, stream);
    if (error != cudaSuccess) return error;
  }
  return column_sums_cuda({.partials = call.partials,
                           .num_partials = backward_blocks(call.shape),
                           .width = call.shape.width,
                           .first = call.d_gamma,
                           .second = call.d_beta},
                          stream);
}

}  // namespace scrna::kernels
