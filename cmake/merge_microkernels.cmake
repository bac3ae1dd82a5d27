# Makes one object of those of XNNPACK's microkernels that the kernels call, so that libacorn.a stands alone.
#   cmake -DKERNELS=libacorn_kernels.a -DARCHIVE=libmicrokernels-prod.a -DTRAPS=traps.o -DOUT=x.o -DNM=nm -DLINKER=ld -DOBJCOPY=objcopy -P this
# Of what comes along only the called symbols stay visible.
execute_process(COMMAND "${NM}" --undefined-only --format=posix "${KERNELS}"
  OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "(^|\n)xnn_[A-Za-z0-9_]+" wanted "${symbols}")
list(TRANSFORM wanted STRIP)
list(REMOVE_DUPLICATES wanted)
list(SORT wanted)
if(NOT wanted)
  message(FATAL_ERROR "${KERNELS} calls no microkernel, yet was built with ${ARCHIVE}")
endif()
set(pull "")
set(keep "")
foreach(symbol IN LISTS wanted)
  list(APPEND pull --undefined=${symbol})
  list(APPEND keep --keep-global-symbol=${symbol})
endforeach()
execute_process(COMMAND "${LINKER}" -r -o "${OUT}" ${pull} "${TRAPS}" "${ARCHIVE}" COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${OBJCOPY}" ${keep} "${OUT}" COMMAND_ERROR_IS_FATAL ANY)
