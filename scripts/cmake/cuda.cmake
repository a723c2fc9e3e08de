# Enables the CUDA language when device code is built (machine.cmake decides). Sets SCRNA_CUDA_ENABLED.
include(machine)
set(SCRNA_CUDA_ENABLED ${SCRNA_CUDA_WANTED})
if(SCRNA_CUDA_ENABLED)
  if(NOT SCRNA_NVCC)
    message(FATAL_ERROR "Device code is to be built (${SCRNA_CUDA_REASON}), but there is no nvcc 13. "
      "Run scripts/build.sh, which fetches one, or set CMAKE_CUDA_COMPILER; -DSCRNA_CUDA=OFF builds for CPU only.")
  endif()
  set(CMAKE_CUDA_COMPILER "${SCRNA_NVCC}" CACHE FILEPATH "nvcc")
  # sm_80 for everything portable; sm_90a for the Hopper kernels (set per target).
  set(CMAKE_CUDA_ARCHITECTURES 80-virtual 90a-real)
  enable_language(CUDA)
  # CMake 3.25.1 (Debian 12) stops at CUDA 13, which has no nvToolsExt, in a project that requires CMake 3.25.
  set(scrna_minimum "${CMAKE_MINIMUM_REQUIRED_VERSION}")
  set(CMAKE_MINIMUM_REQUIRED_VERSION 3.24)
  find_package(CUDAToolkit 13.0 REQUIRED)
  set(CMAKE_MINIMUM_REQUIRED_VERSION "${scrna_minimum}")
endif()
# CMake 3.25 does not know C++20 for nvcc 13, so the flag is given by hand.
target_compile_options(scrna_options INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20 -O3 -lineinfo -Xcompiler=-Wall,-Wextra>
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${SCRNA_WERROR}>>:-Werror=all-warnings>)
