// The kernel that makes codes and block scales. A thread block takes one patch of the source, for one operand or, from
// the same read of the patch, for two. The kernel is compiled once for every kind of operand that deserves registers
// of its own.
#pragma once

#include <type_traits>

#include "quant/format/swizzle.h"
#include "quant/quantize/cuda/cast_eden.cuh"
#include "quant/quantize/cuda/cast_nvfp4.cuh"
#include "quant/quantize/cuda/cast_scaled.cuh"
#include "quant/quantize/cuda/quantize_rotation.cuh"

namespace nibble::cuda {

enum class CastKind : uint8_t {
  nearest,        // nvfp4 1x16, scale: amax
  four_over_six,  // nvfp4 1x16, squared error, to nearest
  stochastic,     // nvfp4 1x16, scale: amax
  published,      // nvfp4 1x16, stochastic_published
  square,         // nvfp4 16x16, scale: amax, to nearest
  post_hoc,       // MS-EDEN, the tensor scale last
  scaled,         // MX and FP8
  nvfp4,          // all others of nvfp4
  any             // a pair of different kinds
};

// Returns the rules with everything that is known when the kernel is compiled in place of what the problem says.
template <CastKind kind>
__device__ __forceinline__ CastRules rules_of(const CastRules& given) {
  CastRules rules = given;
  if constexpr (kind == CastKind::any || kind == CastKind::scaled) {
    if (kind == CastKind::scaled) rules.square = rules.outer = false;
    return rules;
  }
  rules.element = ElementCode::e2m1;
  rules.block_scale = ScaleCode::e4m3;
  if constexpr (kind == CastKind::nvfp4) return rules;
  rules.outer = false;
  rules.square = kind == CastKind::square;
  rules.scale = kind == CastKind::four_over_six ? ScaleRule::four_over_six : ScaleRule::amax;
  rules.round = kind == CastKind::stochastic  ? Rounding::stochastic
                : kind == CastKind::published ? Rounding::stochastic_published
                : kind == CastKind::post_hoc  ? Rounding::ms_eden
                                              : Rounding::nearest;
  return rules;
}

// State that the threads of a block share.
constexpr int patch_scale_bytes = patch_side * runs_across;
struct CastState {
  alignas(16) uint8_t block_scales[patch_scale_bytes];  // block scales of one operand, in their swizzled order
  TensorScale scale[2];
  PhiloxBlock signs[2][2];  // [operand][rotation]
  uint32_t amax[2];
  uint32_t corrected[2];
};

__device__ __forceinline__ uint32_t* met_corrected(const OperandCast& operand) {
  return reinterpret_cast<uint32_t*>(operand.tensor_scale);
}
__device__ __forceinline__ uint32_t* observed_amax(const OperandCast& operand) {
  return reinterpret_cast<uint32_t*>(operand.tensor_scale + 1);
}

// Returns the scale that the cast uses; it has no meaning with ScaleOrigin::corrected.
__device__ __forceinline__ TensorScale scale_before_cast(const OperandCast& operand) {
  switch (operand.origin) {
    case ScaleOrigin::amax_pass: return tensor_scale_of(float_of_bits(*observed_amax(operand)), operand.largest);
    case ScaleOrigin::given: return tensor_scale_of(operand.given_amax, operand.largest);
    case ScaleOrigin::fixed:
    case ScaleOrigin::corrected: break;
  }
  return operand.fixed_scale;
}

__device__ __forceinline__ float nan_unless_finite(float amax, float decode) {
  return is_finite(amax) ? decode : float_of_bits(0x7FC00000u);
}

// The place of the patch in the source, or in an operand.
struct PatchOrigin {
  int64_t row, col;
};
__device__ __forceinline__ PatchOrigin patch_origin(const SourceMatrix& source, unsigned patch) {
  const unsigned across = static_cast<unsigned>((source.cols + patch_side - 1) / patch_side);
  return {static_cast<int64_t>(patch / across) * patch_side, static_cast<int64_t>(patch % across) * patch_side};
}
__device__ __forceinline__ PatchOrigin origin_in(const OperandCast& operand, const PatchOrigin& patch) {
  return operand.transpose ? PatchOrigin{patch.col, patch.row} : patch;
}

// Draws the signs of the patch's 128 positions: different threads for different rotations. A barrier must follow.
__device__ __forceinline__ void draw_signs(const CastLaunch& problem, const PatchOrigin& patch,
                                           PhiloxBlock (&signs)[2][2]) {
  const int operand = static_cast<int>(threadIdx.x) / warp_lanes;
  const int index = static_cast<int>(threadIdx.x) % warp_lanes;
  if (operand >= problem.count) return;
  const OperandCast& cast = problem.operands[operand];
  if (cast.rotation.points == 0 || index >= cast.rotation.count) return;
  signs[operand][index] = signs_of(cast.rotation, index, origin_in(cast, patch).col / patch_side);
}

// Takes the run of this lane and rotates it. All lanes of the warp must call it.
template <class T>
__device__ __forceinline__ Run take_run(const OperandCast& operand, const SourcePatch<T>& patch,
                                        const PatchOrigin& origin, const RunPosition& position,
                                        const PhiloxBlock* signs) {
  Run run;
  run.row = origin.row + position.row;
  run.position = origin.col + position.run * run_length;
  run.lane_run = position.run;
  run.present = run.row < operand.rows && run.position < operand.inner;
  patch.read(operand.transpose, position.row, position.run, run.values);
  rotate_run<T>(operand.rotation, signs, position.run, run.values);
  return run;
}

__device__ __forceinline__ CastRun cast_run(const OperandCast& operand, const CastRules& rules,
                                            const TensorScale& tensor, const Run& run) {
  switch (rules.block_scale) {
    case ScaleCode::none: return cast_fp8(rules, tensor, run);
    case ScaleCode::e8m0: return cast_mx(operand, rules, run);
    case ScaleCode::e4m3: break;
  }
  if (rules.round != Rounding::ms_eden) return cast_nvfp4(operand, rules, tensor, run);
  return is_post_hoc(rules) ? cast_post_hoc(operand, rules, run) : cast_scale_first(operand, rules, tensor, run);
}

__device__ __forceinline__ void store_codes(const OperandCast& operand, const CastRules& rules, const Run& run,
                                            const uint4& codes) {
  const int64_t first = run.row * operand.inner + run.position;
  if (rules.element == ElementCode::e2m1) {
    *reinterpret_cast<uint2*>(operand.codes + first / 2) = make_uint2(codes.x, codes.y);
  } else if (operand.inner % run_length == 0) {
    *reinterpret_cast<uint4*>(operand.codes + first) = codes;
  } else {  // FP8 only, where no block has to be whole
    const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
    for (int i = 0; i < run_length; ++i) {
      if (run.position + i < operand.inner) operand.codes[first + i] = static_cast<uint8_t>(words[i / 4] >> i % 4 * 8);
    }
  }
}

// Makes one operand's codes of the patch; block scales go to `state`.
template <class T, CastKind kind>
__device__ __forceinline__ void cast_patch(const OperandCast& operand, const SourcePatch<T>& patch,
                                           const PatchOrigin& origin, int index, CastState& state) {
  const CastRules rules = rules_of<kind>(operand.rules);
  const TensorScale tensor = state.scale[index];
  const int block_runs = rules.block_scale == ScaleCode::e8m0 ? 2 : 1;
  uint32_t amax = 0;
  uint32_t corrected = 0;
#pragma unroll 1
  for (int group = static_cast<int>(threadIdx.x) / warp_lanes; group < run_groups;
       group += quantize_threads / warp_lanes) {
    const RunPosition position = run_position(group, rules.square);
    uint32_t block_scale = 0;
    if (__any_sync(all_lanes, origin.row + position.row < operand.rows)) {
      const Run run = take_run(operand, patch, origin, position, state.signs[index]);
      const CastRun cast = cast_run(operand, rules, tensor, run);
      const uint32_t here = amax_bits(run.values);
      amax = here > amax ? here : amax;
      if (run.present) {
        store_codes(operand, rules, run, cast.codes);
        block_scale = cast.block_scale;
        if (is_post_hoc(rules)) {
          operand.corrected[run.row * (operand.inner / run_length) + run.position / run_length] = cast.corrected;
          const uint32_t bits = bits_of(cast.corrected) & 0x7FFFFFFFu;
          corrected = bits > corrected ? bits : corrected;
        }
      }
    }
    if (position.run % block_runs == 0) {
      const int64_t at = swizzled_scale_offset(position.row, position.run / block_runs, runs_across / block_runs);
      state.block_scales[at] = static_cast<uint8_t>(block_scale);
    }
  }
  amax = __reduce_max_sync(all_lanes, amax);
  corrected = __reduce_max_sync(all_lanes, corrected);
  if (threadIdx.x % warp_lanes != 0) return;
  atomicMax(&state.amax[index], amax);
  if (is_post_hoc(rules)) atomicMax(&state.corrected[index], corrected);
}

// Stores the swizzle cells of block scales that this patch fills, zeros in their padding included.
template <CastKind kind>
__device__ __forceinline__ void store_block_scales(const OperandCast& operand, const PatchOrigin& origin,
                                                   const CastState& state) {
  const CastRules rules = rules_of<kind>(operand.rules);
  if (rules.block_scale == ScaleCode::none || is_post_hoc(rules)) return;
  const int block = rules.block_scale == ScaleCode::e8m0 ? 32 : 16;
  const int64_t blocks = operand.inner / block;
  const int64_t across = (blocks + 3) / 4 * 4;
  const int64_t first = origin.col / block;
  const int64_t here = across - first < patch_side / block ? across - first : patch_side / block;
  const auto* from = reinterpret_cast<const uint4*>(state.block_scales);
  auto* to = reinterpret_cast<uint4*>(operand.block_scales + swizzled_scale_offset(origin.row, first, blocks));
  const int chunks = static_cast<int>(here) * patch_side / 16;
  if (static_cast<int>(threadIdx.x) < chunks) to[threadIdx.x] = from[threadIdx.x];
}

// The number of blocks that a multiprocessor is to hold. It bounds the registers, as far as nothing spills.
template <class T>
constexpr int resident_blocks(CastKind kind) {
  switch (kind) {
    case CastKind::nearest:
    case CastKind::stochastic:
    case CastKind::published:
    case CastKind::square: return 4;
    case CastKind::four_over_six: return std::is_same_v<T, SavedCode> ? 2 : 3;
    case CastKind::post_hoc: return 3;
    case CastKind::scaled:
    case CastKind::nvfp4: return 2;
    case CastKind::any: break;
  }
  return 1;
}

template <class T, CastKind kind>
__global__ void __launch_bounds__(quantize_threads, resident_blocks<T>(kind))
    cast_kernel(const __grid_constant__ CastLaunch problem) {
  __shared__ CastState state;
  SourcePatch<T> patch(dynamic_shared<uint4>());
  const PatchOrigin source_origin = patch_origin(problem.source, blockIdx.x);
  patch.load(problem.source, source_origin.row, source_origin.col);
  if (threadIdx.x < static_cast<unsigned>(problem.count)) {
    const OperandCast& operand = problem.operands[threadIdx.x];
    const TensorScale scale = scale_before_cast(operand);
    state.scale[threadIdx.x] = scale;
    state.amax[threadIdx.x] = state.corrected[threadIdx.x] = 0;
    if (blockIdx.x == 0 && operand.origin == ScaleOrigin::amax_pass) {
      operand.tensor_scale[0] = nan_unless_finite(operand.tensor_scale[1], scale.decode);
    }
  }
  draw_signs(problem, source_origin, state.signs);
  __syncthreads();
#pragma unroll 1
  for (int index = 0; index < problem.count; ++index) {
    const OperandCast& operand = problem.operands[index];
    const PatchOrigin origin = origin_in(operand, source_origin);
    cast_patch<T, kind>(operand, patch, origin, index, state);
    __syncthreads();
    store_block_scales<kind>(operand, origin, state);
    if (threadIdx.x == 0 && operand.origin != ScaleOrigin::amax_pass) {
      atomicMax(observed_amax(operand), state.amax[index]);
      if (operand.origin == ScaleOrigin::corrected) atomicMax(met_corrected(operand), state.corrected[index]);
    }
    __syncthreads();
  }
}

// Implemented in quantize_cast_bf16.cu, quantize_cast_f32.cu and quantize_cast_saved.cu.
template <class T>
void launch_cast(CastKind kind, unsigned patches, const CastLaunch& problem);

template <class T, CastKind kind>
void launch_cast_of(unsigned patches, const CastLaunch& problem) {
  launch("quantize", cast_kernel<T, kind>, {dim3(patches), dim3(quantize_threads), SourcePatch<T>::bytes}, problem);
}

}  // namespace nibble::cuda
