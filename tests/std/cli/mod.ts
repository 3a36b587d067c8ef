/**
 * Stand-in for the part of `@std/cli` that the command line uses.
 *
 * @module
 */
export * from "./parse_args.ts";
