/* SPDX-License-Identifier: MIT */
/*
 * Seeded faults: MUTANT(n) is true in the build for proptest/mutants while
 * fault n is switched on, and constant false in every other one, so that the
 * product holds no trace of them. Each is a mistake that engines have been
 * known to make; proptest/mutants/mutants_test.c says which, and proves that
 * the tests of crashes and faults notice every one.
 */
#ifndef ESKER_BASE_MUTANT_H
#define ESKER_BASE_MUTANT_H

#ifdef ESKER_MUTANTS
extern int esker_mutant; /* 0 = none */
#define MUTANT(number) (esker_mutant == (number))
#else
#define MUTANT(number) 0
#endif

#endif
