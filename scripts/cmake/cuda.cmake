# Decides whether device code is built (SCRNA_CUDA) and enables the CUDA language. Sets SCRNA_CUDA_ENABLED.
set(SCRNA_CUDA_ENABLED OFF)
if(NOT SCRNA_CUDA STREQUAL "OFF")
  if(NOT CMAKE_CUDA_COMPILER)
    find_program(SCRNA_NVCC nvcc HINTS /usr/local/cuda/bin)
    if(SCRNA_NVCC)
      set(CMAKE_CUDA_COMPILER "${SCRNA_NVCC}" CACHE FILEPATH "nvcc")
    endif()
  endif()
  if(CMAKE_CUDA_COMPILER)
    # sm_80 for everything portable; sm_90a for the Hopper kernels (set per target).
    set(CMAKE_CUDA_ARCHITECTURES 80-virtual 90a-real)
    enable_language(CUDA)
    find_package(CUDAToolkit 13.0 REQUIRED)
    set(SCRNA_CUDA_ENABLED ON)
  elseif(SCRNA_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SCRNA_CUDA=ON, but no nvcc was found. Run scripts/build.sh, which fetches one, or set CMAKE_CUDA_COMPILER.")
  endif()
endif()
# CMake 3.25 does not know C++20 for nvcc 13, so the flag is given by hand.
target_compile_options(scrna_options INTERFACE
  $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20 -O3 -lineinfo -Xcompiler=-Wall,-Wextra>
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${SCRNA_WERROR}>>:-Werror=all-warnings>)
