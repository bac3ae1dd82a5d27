# cmake -DPROGRAM=FILE -DREADELF=... -DNM=... [-DSTATIC=ON] [-DDEBUG=ON] -P hardened.cmake
# A program is position-independent, nothing of it is both written and executed, what the linker resolves cannot be written over
# later, and overruns on the stack and in the C library's functions end it.
execute_process(COMMAND "${READELF}" -hldW "${PROGRAM}" OUTPUT_VARIABLE facts COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${NM}" "${PROGRAM}" OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
set(missing "")
# A static program at a fixed address has no such section, and nothing to resolve.
set(dynamic "position-independent|Type: +DYN" "all resolved at start|BIND_NOW|Flags:[^\n]*NOW")
if(STATIC)
  set(dynamic "")
endif()
# Of the checked functions the ones that the programs' own code calls: libsodium brings one, and the stack protector is named like them.
set(checked "checked library functions|printf_chk")
if(DEBUG)  # FORTIFY wants a compiler that optimises
  set(checked "")
endif()
foreach(rule IN ITEMS
    ${dynamic}
    ${checked}
    "relocations read-only|GNU_RELRO"
    "stack protector|__stack_chk_fail")
  string(REGEX REPLACE "^([^|]*)\\|(.*)$" "\\1" name "${rule}")
  string(REGEX REPLACE "^([^|]*)\\|(.*)$" "\\2" pattern "${rule}")
  if(NOT "${facts}${symbols}" MATCHES "${pattern}")
    string(APPEND missing " ${name};")
  endif()
endforeach()
if(facts MATCHES "GNU_STACK[^\n]* RWE")
  string(APPEND missing " a stack that is not executed;")
endif()
if(facts MATCHES "LOAD[^\n]* RWE")
  string(APPEND missing " segments that are written or executed, not both;")
endif()
if(missing)
  message(FATAL_ERROR "${PROGRAM} lacks:${missing}")
endif()
