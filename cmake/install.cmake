# `cmake --install`: the program, both libraries, the header, pkg-config, the manual.
set(CMAKE_INSTALL_LIBDIR lib CACHE PATH "Folder of libraries below the prefix")
include(GNUInstallDirs)

set(ARTEL_REQUIRES_PRIVATE ${ARTEL_PRIVATE_PACKAGES})
list(JOIN ARTEL_REQUIRES_PRIVATE " " ARTEL_REQUIRES_PRIVATE)
# The folder of artel.pc finds the prefix, so an installed tree may be moved.
file(RELATIVE_PATH ARTEL_PREFIX_UP /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" ARTEL_PREFIX_UP "${ARTEL_PREFIX_UP}")
configure_file(${PROJECT_SOURCE_DIR}/cmake/artel.pc.in ${PROJECT_BINARY_DIR}/artel.pc @ONLY)

install(TARGETS artel_shared artel_archive
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/artel.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_BINARY_DIR}/artel.pc
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(TARGET artel)
  install(TARGETS artel RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
file(GLOB ARTEL_MANUALS CONFIGURE_DEPENDS docs/*.1)
if(ARTEL_MANUALS)
  install(FILES ${ARTEL_MANUALS} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
endif()
