# What is installed: libartel and the program, both from the folders' objects.

set(ARTEL_FOLDERS base files model text data math tiles experts decoder train save eval plan serve)
set(ARTEL_PRIVATE_PACKAGES jansson yaml-0.1 libcrypto libpcre2-8 libutf8proc lapacke)
# Not among the packages: the private ones of libcurl's own .pc need not be installed.
if(CURL_FOUND)
  string(APPEND ARTEL_PRIVATE_LIBS " -lcurl")
endif()
if(MICROHTTPD_FOUND)
  string(APPEND ARTEL_PRIVATE_LIBS " -lmicrohttpd")
endif()

# libartel.so and libartel.a, of which only what artel.h marks ARTEL_API can be seen.
function(artel_libraries)
  foreach(folder IN LISTS ARTEL_FOLDERS)
    get_target_property(type artel_${folder} TYPE)
    if(type STREQUAL STATIC_LIBRARY)
      list(APPEND objects $<TARGET_OBJECTS:artel_${folder}>)
    endif()
  endforeach()
  add_library(artel_shared SHARED ${objects})
  set_target_properties(artel_shared PROPERTIES OUTPUT_NAME artel LINKER_LANGUAGE C
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
    LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
  target_link_libraries(artel_shared PRIVATE artel_flags PkgConfig::JANSSON PkgConfig::YAML
    PkgConfig::CRYPTO PkgConfig::PCRE2 PkgConfig::UTF8PROC PkgConfig::LAPACKE
    $<TARGET_NAME_IF_EXISTS:PkgConfig::CURL>
    $<TARGET_NAME_IF_EXISTS:PkgConfig::MICROHTTPD>)

  # An archive of one object: hidden names become local, so that short names such
  # as map_open() cannot meet a caller's own.
  set(whole ${CMAKE_CURRENT_BINARY_DIR}/libartel.o)
  add_custom_command(OUTPUT ${whole}
    COMMAND ${CMAKE_LINKER} -r -o ${whole} ${objects}
    COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${whole}
    DEPENDS ${objects} COMMAND_EXPAND_LISTS VERBATIM)
  set_source_files_properties(${whole} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  add_library(artel_archive STATIC ${whole})
  set_target_properties(artel_archive PROPERTIES OUTPUT_NAME artel LINKER_LANGUAGE C
    ARCHIVE_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
endfunction()

# The program: src/cli/*.c over the folders' libraries. What of them it may
# include is tests/style/includes.sh's affair.
function(artel_program)
  file(GLOB files CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cli/*.c)
  if(NOT files)
    return()
  endif()
  add_executable(artel ${files})
  target_link_libraries(artel PRIVATE artel_serve)
  target_compile_options(artel PRIVATE -Wdouble-promotion)
  set_target_properties(artel PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
endfunction()
