# Compiles one attention kernel file again and reads what ptxas says: a spill, an array in local memory, or a message C75xx ("wgmma serialised",
# "setmaxnreg ignored"), which nvcc reports as information only, fails the test. Each costs up to half of the speed.
#   cmake -DNVCC=... -DSOURCE=... -DINCLUDE=... -DVIRTUAL=80 -DREAL=90 -DOBJECT=... -P check_ptxas.cmake
execute_process(
  COMMAND ${NVCC} -std=c++20 -O3 -I${INCLUDE} -gencode arch=compute_${VIRTUAL},code=sm_${REAL} -Xptxas=-v,-warn-spills
    -cubin -o ${OBJECT} ${SOURCE}
  RESULT_VARIABLE failed OUTPUT_VARIABLE messages ERROR_VARIABLE messages)
if(failed)
  message(FATAL_ERROR "${SOURCE} does not compile:\n${messages}")
endif()
if(NOT messages MATCHES "0 bytes spill stores")
  message(FATAL_ERROR "ptxas reported nothing about registers; its output has changed:\n${messages}")
endif()
string(REGEX MATCHALL "[^\n]*(\\(C75[0-9][0-9]\\)|Registers are spilled|[1-9][0-9]* bytes stack frame)[^\n]*" bad "${messages}")
if(bad)
  list(JOIN bad "\n" bad)
  message(FATAL_ERROR "${SOURCE}:\n${bad}")
endif()
