// Every numeric tolerance of the tests, each with its reason; tests name one of these and never write a
// number of their own. Kinds, from strict to loose: exact equality (no constant needed); at most kTwinFactor
// times the error that the composed twin itself makes against fp64; an analytic bound; a statistical bound
// with its false-alarm rate.
#pragma once

namespace scrna::test {

/// A fused operation may be at most this many times further from fp64 than the composed operators of the same
/// type.
inline constexpr double kTwinFactor = 2.0;
/// ... plus this much relative L2 error, because a twin that happens to be exact must not fail an honest fp32
/// kernel: four times the unit roundoff of fp32.
inline constexpr double kTwinFloor = 4 * 0x1.0p-24;

/// Relative L2 error against fp64 of attention in fp32 (outputs and gradients): sums of up to some thousand
/// rounded terms with random signs, each step of relative size 2^-24 times a small constant.
inline constexpr double kFloat32RelativeL2 = 1e-6;
/// The same with scores scaled up by s: an absolute score error of s * 2^-24 * |q.k| turns into a relative
/// error of the weights, so the bound grows by this factor per unit of s.
inline constexpr double kFloat32RelativeL2PerScoreScale = 5e-7;
/// fp64 composed operators against fp64 loops: rounding only.
inline constexpr double kFloat64RelativeL2 = 1e-13;
/// bf16 and fp16 results of an fp32 computation: half an ulp of the output type (2^-9, 2^-12) in relative L2.
inline constexpr double kBFloat16OutputRelativeL2 = 0x1.0p-9;
inline constexpr double kFloat16OutputRelativeL2 = 0x1.0p-12;
/// Attention on the GPU with operands in bf16 or fp16 against fp64 on the same operands: weights and score gradients are
/// rounded before they enter a product, sums are fp32, results are rounded again.
inline constexpr double kBFloat16AttentionOutput = 4e-3;    // O, dV
inline constexpr double kBFloat16AttentionGradient = 5e-3;  // dQ, dK
inline constexpr double kFloat16AttentionOutput = 6e-4;
inline constexpr double kFloat16AttentionGradient = 8e-4;
/// Its bias gradient, relative to the sum of magnitudes: width 128 holds P (1 - P) rounded to bf16 (2^-9), of weights
/// whose own relative error may reach 2^-9. Cells of one token have one term, so nothing averages out.
inline constexpr double kHalfBiasGradientOfMagnitudes = 0x1.0p-8;
/// The fast sigmoid's absolute error (tanh.approx: 2^-17 of values near 1, halved and doubled again), per unit of V = 1.
inline constexpr double kFastSigmoidAbsolute = 0x1.0p-17;
/// Mean signed relative error of sums of exact weights: rounding of weights to fp16 (2^-12, less where they are
/// subnormal) averages out over thousands of keys.
inline constexpr double kExactSumSignedRelative = 0x1.0p-11;
/// The bias gradient sums n^2 H signed terms; its error is measured against the sum of their magnitudes.
inline constexpr double kBiasGradientOfMagnitudes = 1e-6;

/// kernels' exp in fp32 against fp64, in units of the last place of the result.
inline constexpr double kExpUlp = 2.0;
/// Sigmoid in fp32: exp, one addition, one division.
inline constexpr double kSigmoidUlp = 4.0;

/// Sums of 65,537 rows in fp32, in whatever order LibTorch's CPU code adds them: sqrt(65,537) * 2^-24.
inline constexpr double kFloat32LongSumRelativeL2 = 1.6e-5;
/// The GELU kernel relative to its own value, also where that is 1e-30: the exponent v^2 / 2 of up to 72 in fp32.
inline constexpr double kGeluTailRelative = 2e-5;

/// Loss near initialisation in bf16 against fp32: logits of order 0.1 rounded to 2^-9 of themselves, averaged.
inline constexpr double kBFloat16LossRelative = 2e-3;

/// AdamW's kernel against LibTorch's after three steps, in units of the value's last place: a dozen roundings in another
/// order, each below one.
inline constexpr double kAdamWUlps = 8.0;
/// LibTorch's AdamW on a GPU forms 1 - beta2 from beta2 = 0.999 rounded to fp32: 1.3e-5 too small, and so are second
/// moments (half of that in an update). Our kernel takes it from fp64.
inline constexpr double kLibTorchSecondMomentRelative = 1.4e-5;
/// Norm of gradients: rows of 1,024 in fp32, the rest in fp64.
inline constexpr double kGradientNormRelative = 1e-6;
/// Gradients added in place in fp32 three times against one backward pass times three, values of order 100.
inline constexpr double kAccumulatedGradientAbsolute = 1e-3;

/// The same fp32 computation on a GPU and on the CPU: sums in another order, squared afterwards.
inline constexpr double kGpuAgainstCpuRelative = 1e-5;

/// An embedding in fp32 from packs of different cells, entries near 1: products of other shapes round differently, in
/// three blocks.
inline constexpr double kPackedEmbedding = 2e-5;
/// An embedding in bf16 against fp32, relative L2 of a row: every product's operands rounded to 2^-9, a dozen of them
/// one after another; a single token (Pooling::kFirst) does not average it out.
inline constexpr double kBFloat16EmbeddingRelativeL2 = 2e-2;
/// The same in bf16 from packs of different cells: sums in another order flip some roundings of results.
inline constexpr double kBFloat16PackRelativeL2 = 1e-2;

/// The classification head in fp32 against fp64, parts of the largest: products of 24 and sums of dozens of numbers, each
/// rounded to 2^-24, deviations down to 0.1 dividing.
inline constexpr double kHeadRelative = 2e-5;
/// Probabilities of held-out cells after ten steps of full training from packs of other cells: rounded otherwise, which
/// AdamW's first steps, near the sign of a gradient, enlarge.
inline constexpr double kFinetunedProbability = 2e-3;
/// The same in bf16 on a GPU.
inline constexpr double kFinetunedProbabilityBf16 = 5e-2;

/// The curve of a dozen steps on several ranks against one process: gradients summed in another order (2^-24
/// each), which AdamW's first steps, near the sign of a gradient, enlarge. Losses and norms, relative; a lost
/// rank is 1e-2 and more.
inline constexpr double kRanksRelative = 1e-4;
/// The same on the same ranks with and without a sharded optimizer: sums of two ranks are the same bits, but the
/// clipping factor, from a norm summed in another order, and sums of more ranks are not.
inline constexpr double kShardedRelative = 2e-5;
/// The same over 120 steps of a tiny model: roundings add up.
inline constexpr double kLongRanksRelative = 1e-3;
/// The same with gradients rounded to bf16 (2^-9 each, independent) before they are summed.
inline constexpr double kBf16GradientsRelative = 2e-2;

/// Metrics in fp64 on a dozen cells with numbers of order 10: some hundred roundings.
inline constexpr double kFloat64Metric = 1e-12;
/// Distances of cells of order 1 after everything was moved by 1e6: their numbers hold 2^-53 x 1e6 = 1e-10.
inline constexpr double kMovedMetric = 1e-8;
/// A minimum found to a gradient of 1e-12, curvature of order 1.
inline constexpr double kConvergedMinimum = 1e-9;
/// UMAP's curve against umap-learn's, whose optimiser stops at 1e-8 of squares; values given with five digits.
inline constexpr double kUmapCurve = 1e-4;

/// Statistical: standard deviations of the mean, false alarm 6e-7 (5.0 sigma, two-sided).
inline constexpr double kSigmas = 5.0;

}  // namespace scrna::test
