# Options of the build, and the INTERFACE target that carries language, warnings and sanitizers to our own code.
set(SCRNA_CUDA AUTO CACHE STRING "Device code: AUTO (an NVIDIA driver or nvcc 13 is present), ON, OFF")
set_property(CACHE SCRNA_CUDA PROPERTY STRINGS AUTO ON OFF)
option(SCRNA_TESTS "Build the tests" ON)
option(SCRNA_WERROR "Treat warnings in our code as errors" ON)
set(SCRNA_SANITIZE "" CACHE STRING "Sanitizers, for example address,undefined (empty: none)")

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")

find_program(SCRNA_CCACHE ccache)
if(SCRNA_CCACHE)
  # Paths are taken relative to the clone, so that a second clone finds what the first has compiled.
  set(scrna_launcher ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${SCRNA_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${scrna_launcher})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${scrna_launcher})
endif()

add_library(scrna_options INTERFACE)
target_compile_features(scrna_options INTERFACE cxx_std_20)
target_include_directories(scrna_options INTERFACE "${PROJECT_SOURCE_DIR}")
target_compile_options(scrna_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wconversion -Wno-sign-conversion
    -Wno-missing-field-initializers>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${SCRNA_WERROR}>>:-Werror>)
# The optimiser of g++ 13 blames us for code of LibTorch and the standard library that it inlined (vector<bool> in
# torch::autograd::Function::apply): two of its warnings are off there, others do not stop the build. g++ 12 keeps them all.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
  target_compile_options(scrna_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-array-bounds -Wno-stringop-overflow
    -Wno-error=stringop-overread -Wno-error=maybe-uninitialized -Wno-error=restrict>)
endif()
if(SCRNA_SANITIZE)
  target_compile_options(scrna_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SCRNA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=undefined>)
  target_link_options(scrna_options INTERFACE -fsanitize=${SCRNA_SANITIZE})
endif()
