# acorn_layer(NAME SOURCES file... [LIBS target...])
#
# One layer of the runtime: a static library acorn_NAME whose objects also go into the archive, libacorn.a. A layer links
# only the layers that it may include, so that a test of one layer links only that layer and what is below it.
# A layer of headers alone (no SOURCES) is an INTERFACE library.
function(acorn_layer name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LIBS")
  if(arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "acorn_layer(${name}): unknown ${arg_UNPARSED_ARGUMENTS}")
  endif()
  if(arg_SOURCES)
    add_library(acorn_${name} STATIC ${arg_SOURCES})
    target_link_libraries(acorn_${name} PUBLIC acorn_runtime_includes ${arg_LIBS} PRIVATE acorn_runtime_flags)
    set_property(GLOBAL APPEND PROPERTY ACORN_LAYERS acorn_${name})
  else()
    add_library(acorn_${name} INTERFACE)
    target_link_libraries(acorn_${name} INTERFACE acorn_runtime_includes ${arg_LIBS})
  endif()
endfunction()
