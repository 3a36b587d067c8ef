/**
 * Stand-in for `@std/cli/parse-args`: the options that the command line uses, with the same
 * meaning.
 *
 * @module
 */

/** Options of {@linkcode parseArgs}. */
export interface ParseOptions {
  /** Options without a value. */
  boolean?: readonly string[];
  /** Options with a value. */
  string?: readonly string[];
  /** Options that may be given several times. */
  collect?: readonly string[];
  /** Short names. */
  alias?: Record<string, string>;
  /** Called for every argument that is no known option; false drops it. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
  /** Everything from the first argument that is no option on is left alone. */
  stopEarly?: boolean;
}

/** What {@linkcode parseArgs} found; `_` holds the arguments that are no options. */
export interface Args {
  // deno-lint-ignore no-explicit-any
  [key: string]: any;
  _: (string | number)[];
}

/** Parses command line arguments. */
export function parseArgs(
  args: readonly string[],
  options: ParseOptions = {},
): Args {
  const booleans = new Set(options.boolean ?? []);
  const strings = new Set(options.string ?? []);
  const collect = new Set(options.collect ?? []);
  const result: Args = { _: [] };
  for (const name of booleans) result[name] = false;
  for (const name of collect) result[name] = [];
  for (let n = 0; n < args.length; n++) {
    const arg = args[n]!;
    if (arg === "--") {
      result._.push(...args.slice(n + 1));
      break;
    }
    const match = /^(?:--([^=]+)|-([a-zA-Z]))(?:=([^]*))?$/.exec(arg);
    if (match === null) {
      if (options.unknown?.(arg) === false) continue;
      if (options.stopEarly) {
        result._.push(...args.slice(n));
        break;
      }
      result._.push(arg);
      continue;
    }
    const given = match[1] ?? match[2]!;
    const name = options.alias?.[given] ?? given;
    let value: string | boolean | undefined = match[3];
    if (!booleans.has(name) && !strings.has(name)) {
      if (options.unknown?.(arg, name, value) === false) continue;
    }
    if (value === undefined) {
      const next = args[n + 1];
      if (
        !booleans.has(name) && next !== undefined &&
        (strings.has(name) ? !/^--?[a-z]/i.test(next) : !next.startsWith("-"))
      ) {
        value = next;
        n++;
      } else value = strings.has(name) ? "" : true;
    } else if (booleans.has(name)) value = value !== "false";
    if (collect.has(name)) result[name].push(value);
    else result[name] = value;
  }
  return result;
}
