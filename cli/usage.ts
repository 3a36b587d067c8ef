import { parseArgs } from "@std/cli/parse-args";

/** A command line or an input file that cannot be used: one line for stderr, exit code 2. */
export class UsageError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "UsageError";
  }
}

/** Exit codes of the command line; a guest's own come from its debug exit port. */
export const ExitCode = {
  Success: 0,
  Failure: 1,
  Usage: 2,
  TripleFault: 3,
  /** As `timeout(1)` has it. */
  Timeout: 124,
  /** 128 and the number of SIGINT, as shells have it. */
  Interrupted: 130,
} as const;

/** The options that a command knows. */
export interface OptionNames {
  /** Without a value. */
  boolean?: readonly string[];
  /** With a value. */
  string?: readonly string[];
  /** With a value, and may be given several times. */
  collect?: readonly string[];
  /** With or without a value; what a missing value means. */
  optional?: Readonly<Record<string, string>>;
  /** Letters that stand for options. */
  alias?: Readonly<Record<string, string>>;
}

/** What {@linkcode parseOptions} found. */
export interface Options {
  /** Arguments that are no options. */
  positional: string[];
  /** Whether an option without a value was given. */
  flag(name: string): boolean;
  /** The value of an option, or undefined if it was not given. */
  value(name: string): string | undefined;
  /** All values of an option that may be repeated. */
  values(name: string): string[];
}

/**
 * Parses a command's arguments; `--help` is known to all.
 *
 * @throws {UsageError} On an unknown option or a missing value.
 */
export function parseOptions(
  command: string,
  args: readonly string[],
  names: OptionNames,
): Options {
  const optional = names.optional ?? {};
  const boolean = ["help", ...names.boolean ?? []];
  const collect = [...names.collect ?? []];
  const string = [
    ...names.string ?? [],
    ...collect,
    ...Object.keys(optional),
  ];
  const parsed: Record<string, unknown> = parseArgs(
    args.map((arg) =>
      arg.startsWith("--") && arg.slice(2) in optional
        ? `${arg}=${optional[arg.slice(2)]}`
        : arg
    ),
    {
      boolean,
      string: [...string, "_"],
      collect,
      alias: { h: "help", ...names.alias },
      unknown: (arg, key) => {
        if (key === undefined) return true;
        throw new UsageError(
          `Cannot run ${command}: unknown option ${arg} (see ${command} --help)`,
        );
      },
    },
  );
  for (const name of string) {
    if ([parsed[name]].flat().includes("")) {
      throw new UsageError(
        `Cannot run ${command}: option --${name} needs a value`,
      );
    }
  }
  return {
    positional: (parsed["_"] as (string | number)[]).map(String),
    flag: (name) => parsed[name] === true,
    value: (name) => {
      const value = [parsed[name]].flat().at(-1);
      return value === undefined ? undefined : String(value);
    },
    values: (name) => [parsed[name] ?? []].flat().map(String),
  };
}

/** Picks one of `choices`. @throws {UsageError} If `text` is none of them. */
export function parseChoice<T extends string>(
  option: string,
  text: string,
  choices: readonly T[],
): T {
  const found = choices.find((choice) => choice === text);
  if (found === undefined) {
    throw new UsageError(
      `Cannot use --${option} ${text}: must be ${choices.join(" or ")}`,
    );
  }
  return found;
}

/** Bytes from text such as `64M`. @throws {UsageError} If it is no size. */
export function parseSize(option: string, text: string): number {
  const match = /^(\d+)([KMG]?)$/i.exec(text);
  const shift = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[
    match?.[2]?.toUpperCase() ?? ""
  ];
  const bytes = Number(match?.[1]) * (shift ?? NaN);
  if (!Number.isSafeInteger(bytes)) {
    throw new UsageError(
      `Cannot use --${option} ${text}: must be a number of bytes, K, M or G`,
    );
  }
  return bytes;
}

/** Milliseconds from text such as `10s`, `500ms` or `2m`. @throws {UsageError} If it is no time. */
export function parseDuration(option: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m)?$/.exec(text);
  const unit = { ms: 1, s: 1000, m: 60_000 }[match?.[2] ?? "s"];
  const time = Number(match?.[1]) * (unit ?? NaN);
  // A timer's limit is 2^31 milliseconds.
  if (!(time > 0 && time < 2 ** 31)) {
    throw new UsageError(
      `Cannot use --${option} ${text}: must be a time such as 10s, 500ms or 2m`,
    );
  }
  return time;
}

/** A whole number. @throws {UsageError} If it is none. */
export function parseCount(option: string, text: string): number {
  if (!/^\d{1,9}$/.test(text)) {
    throw new UsageError(`Cannot use --${option} ${text}: must be a number`);
  }
  return Number(text);
}

/** An address, decimal or `0x` hexadecimal. @throws {UsageError} If it is none. */
export function parseAddress(option: string, text: string): number {
  const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value)) {
    throw new UsageError(
      `Cannot use --${option} ${text}: must be an address such as 0x7c00`,
    );
  }
  return value;
}

/** A host and a UDP port. */
export interface Endpoint {
  host: string;
  port: number;
}

/**
 * `HOST:PORT`, with 127.0.0.1 and 50000 for what is missing, as QEMU's hv-syndbg has it; an IPv6
 * address is written in brackets.
 *
 * @throws {UsageError} If it is no endpoint.
 */
export function parseEndpoint(option: string, text: string): Endpoint {
  const match = /^(\[[0-9a-f:.%\w]+\]|[^:[\]]*)(?::(\d*))?$/i.exec(text);
  const host = match?.[1]?.replace(/^\[|\]$/g, "") || "127.0.0.1";
  const port = Number(match?.[2] || "50000");
  if (match === null || port < 1 || port > 65_535) {
    throw new UsageError(
      `Cannot use --${option} ${text}: must be HOST:PORT, port 1 to 65535`,
    );
  }
  return { host, port };
}

/**
 * `PORT` or `HOST:PORT` to listen at, with 127.0.0.1 for what is missing; port 0 is a free one.
 *
 * @throws {UsageError} If it is no endpoint.
 */
export function parseListen(option: string, text: string): Endpoint {
  const whole = /^\d+$/.test(text) ? `:${text}` : text;
  if (!/:0+$/.test(whole)) return parseEndpoint(option, whole);
  return { ...parseEndpoint(option, whole.replace(/:0+$/, "")), port: 0 };
}
