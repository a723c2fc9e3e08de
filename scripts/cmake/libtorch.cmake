# LibTorch as two IMPORTED targets: scrna::torch_cpu always, scrna::torch_cuda with SCRNA_CUDA_ENABLED. Own targets
# instead of find_package(Torch): that one insists on nvcc, changes the global CUDA flags and drags in packages
# that a CPU machine does not have. The folder with include/ and lib/ is SCRNA_TORCH_ROOT when given, else what machine.cmake
# finds in CMAKE_PREFIX_PATH, else the one in the cache that scripts/fetch_libtorch.sh fills.
if(NOT SCRNA_TORCH_ROOT)
  if(SCRNA_NAMED_LIBTORCH)
    set(SCRNA_TORCH_ROOT "${SCRNA_NAMED_LIBTORCH}")
  else()
    set(SCRNA_TORCH_ROOT "${scrna_cached_libtorch}/torch")
  endif()
endif()
if(NOT EXISTS "${SCRNA_TORCH_ROOT}/include/ATen/ATen.h")
  message(FATAL_ERROR "LibTorch was not found in CMAKE_PREFIX_PATH or ${SCRNA_TORCH_ROOT}. Run scripts/build.sh, which fetches it.")
endif()
if(SCRNA_CUDA_ENABLED AND NOT EXISTS "${SCRNA_TORCH_ROOT}/lib/libtorch_cuda.so")
  message(FATAL_ERROR "Device code is to be built (${SCRNA_CUDA_REASON}), but the LibTorch in ${SCRNA_TORCH_ROOT} is for CPU only. "
    "Name another in CMAKE_PREFIX_PATH, or build with -DSCRNA_CUDA=OFF.")
endif()
get_filename_component(SCRNA_TORCH_ROOT_REAL "${SCRNA_TORCH_ROOT}" REALPATH)
file(READ "${SCRNA_TORCH_ROOT_REAL}/include/torch/headeronly/version.h" scrna_torch_header)
string(REGEX MATCH "TORCH_VERSION_MAJOR ([0-9]+).*TORCH_VERSION_MINOR ([0-9]+).*TORCH_VERSION_PATCH ([0-9]+)" _ "${scrna_torch_header}")
set(SCRNA_TORCH_VERSION "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}.${CMAKE_MATCH_3}")
if(NOT SCRNA_TORCH_VERSION MATCHES "^2\\.11\\.")
  message(WARNING "LibTorch ${SCRNA_TORCH_VERSION} in ${SCRNA_TORCH_ROOT_REAL}: the project is built and tested with 2.11")
endif()

add_library(scrna::c10 SHARED IMPORTED)
set_target_properties(scrna::c10 PROPERTIES IMPORTED_LOCATION "${SCRNA_TORCH_ROOT_REAL}/lib/libc10.so")
add_library(scrna::torch_cpu SHARED IMPORTED)
set_target_properties(scrna::torch_cpu PROPERTIES
  IMPORTED_LOCATION "${SCRNA_TORCH_ROOT_REAL}/lib/libtorch_cpu.so"
  INTERFACE_INCLUDE_DIRECTORIES "${SCRNA_TORCH_ROOT_REAL}/include;${SCRNA_TORCH_ROOT_REAL}/include/torch/csrc/api/include"
  INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${SCRNA_TORCH_ROOT_REAL}/include;${SCRNA_TORCH_ROOT_REAL}/include/torch/csrc/api/include"
  INTERFACE_LINK_LIBRARIES scrna::c10)
if(SCRNA_CUDA_ENABLED)
  add_library(scrna::c10_cuda SHARED IMPORTED)
  set_target_properties(scrna::c10_cuda PROPERTIES IMPORTED_LOCATION "${SCRNA_TORCH_ROOT_REAL}/lib/libc10_cuda.so")
  # ATen's CUDA headers include those of cuBLAS, cuSPARSE and cuSOLVER, which a small toolkit may lack.
  if(NOT EXISTS "${CUDAToolkit_INCLUDE_DIRS}/cublas_v2.h" AND EXISTS "${SCRNA_TORCH_ROOT_REAL}/../nvidia/cu13/include")
    set_target_properties(scrna::c10_cuda PROPERTIES
      INTERFACE_INCLUDE_DIRECTORIES "${SCRNA_TORCH_ROOT_REAL}/../nvidia/cu13/include"
      INTERFACE_SYSTEM_INCLUDE_DIRECTORIES "${SCRNA_TORCH_ROOT_REAL}/../nvidia/cu13/include")
  endif()
  add_library(scrna::torch_cuda INTERFACE IMPORTED)
  # Nothing references symbols of libtorch_cuda directly: without --no-as-needed Ubuntu's linker drops it.
  set_target_properties(scrna::torch_cuda PROPERTIES INTERFACE_LINK_LIBRARIES
    "scrna::torch_cpu;scrna::c10_cuda;-Wl,--no-as-needed,${SCRNA_TORCH_ROOT_REAL}/lib/libtorch_cuda.so,--as-needed;CUDA::cudart")
endif()

# LibTorch ships headers of its own copy of fmt; our code is compiled against, and linked with, the system's. A folder
# that holds only the system's fmt comes first on the include path.
get_target_property(scrna_fmt_include fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/fmt-first")
file(CREATE_LINK "${scrna_fmt_include}/fmt" "${CMAKE_BINARY_DIR}/fmt-first/fmt" SYMBOLIC)
target_include_directories(scrna_options SYSTEM BEFORE INTERFACE "${CMAKE_BINARY_DIR}/fmt-first")
