/**
 * Stand-in for the parts of `@std/assert` that the tests use, with the same names and
 * signatures, so that they run where the package cannot be fetched.
 *
 * @module
 */
import { deepStrictEqual } from "node:assert/strict";

/** Thrown by a failed assertion. */
export class AssertionError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "AssertionError";
  }
}

function text(value: unknown): string {
  return Deno.inspect(value, { depth: 6 });
}

/** Fails unless `expr` is truthy. */
export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) throw new AssertionError(msg);
}

/** Fails unless the values are deeply equal. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  try {
    deepStrictEqual(actual, expected);
  } catch (cause) {
    const suffix = msg === undefined ? "" : `: ${msg}`;
    throw new AssertionError(
      `Values are not equal${suffix}\n${(cause as Error).message}`,
    );
  }
}

/** Fails unless both values are the same. */
export function assertStrictEquals<T>(
  actual: unknown,
  expected: T,
  msg?: string,
): asserts actual is T {
  if (!Object.is(actual, expected)) {
    throw new AssertionError(
      `Values are not strictly equal${msg ? `: ${msg}` : ""}: ${
        text(actual)
      } and ${text(expected)}`,
    );
  }
}

/** Fails unless `actual` contains `expected`. */
export function assertStringIncludes(
  actual: string,
  expected: string,
  msg?: string,
): void {
  if (!actual.includes(expected)) {
    throw new AssertionError(
      `Expected actual: "${actual}" to contain: "${expected}"${
        msg ? `: ${msg}` : ""
      }`,
    );
  }
}

/** Fails unless `actual` matches `expected`. */
export function assertMatch(
  actual: string,
  expected: RegExp,
  msg?: string,
): void {
  if (!expected.test(actual)) {
    throw new AssertionError(
      `Expected actual: "${actual}" to match: "${expected}"${
        msg ? `: ${msg}` : ""
      }`,
    );
  }
}

function checkThrown<E extends Error>(
  error: unknown,
  // deno-lint-ignore no-explicit-any
  ErrorClass?: abstract new (...args: any[]) => E,
  msgIncludes?: string,
): E {
  if (ErrorClass !== undefined && !(error instanceof ErrorClass)) {
    throw new AssertionError(
      `Expected error to be instance of "${ErrorClass.name}", but was ${
        text(error)
      }`,
    );
  }
  if (
    msgIncludes !== undefined && !(error as Error).message.includes(msgIncludes)
  ) {
    throw new AssertionError(
      `Expected error message to include "${msgIncludes}", but got "${
        (error as Error).message
      }"`,
    );
  }
  return error as E;
}

/** Fails unless `fn` throws. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  // deno-lint-ignore no-explicit-any
  ErrorClass?: abstract new (...args: any[]) => E,
  msgIncludes?: string,
): E {
  try {
    fn();
  } catch (error) {
    return checkThrown(error, ErrorClass, msgIncludes);
  }
  throw new AssertionError("Expected function to throw.");
}

/** Fails unless the promise rejects. */
export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  // deno-lint-ignore no-explicit-any
  ErrorClass?: abstract new (...args: any[]) => E,
  msgIncludes?: string,
): Promise<E> {
  try {
    await fn();
  } catch (error) {
    return checkThrown(error, ErrorClass, msgIncludes);
  }
  throw new AssertionError("Expected function to reject.");
}

/** Fails if the values are deeply equal. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  try {
    deepStrictEqual(actual, expected);
  } catch {
    return;
  }
  throw new AssertionError(
    `Expected actual: ${text(actual)} not to be: ${text(expected)}${
      msg ? `: ${msg}` : ""
    }`,
  );
}

/** Fails if `actual` is null or undefined. */
export function assertExists<T>(
  actual: T,
  msg?: string,
): asserts actual is NonNullable<T> {
  if (actual === undefined || actual === null) {
    throw new AssertionError(
      `Expected actual: "${actual}" to not be null or undefined${
        msg ? `: ${msg}` : ""
      }`,
    );
  }
}

/** A value that counts as false. */
export type Falsy = false | 0 | 0n | "" | null | undefined;

/** Fails unless `expr` is falsy. */
export function assertFalse(expr: unknown, msg = ""): asserts expr is Falsy {
  if (expr) throw new AssertionError(msg);
}

/** Fails unless `actual` is greater than `expected`. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual > expected)) {
    throw new AssertionError(
      msg ?? `Expect ${text(actual)} > ${text(expected)}`,
    );
  }
}

/** Fails unless `actual` is less than `expected`. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  if (!(actual < expected)) {
    throw new AssertionError(
      msg ?? `Expect ${text(actual)} < ${text(expected)}`,
    );
  }
}

/** Fails unless the numbers differ by no more than `tolerance`. */
export function assertAlmostEquals(
  actual: number,
  expected: number,
  tolerance = Math.max(Math.abs(expected) * 1e-7, Number.EPSILON),
  msg?: string,
): void {
  if (Object.is(actual, expected)) return;
  if (!(Math.abs(expected - actual) <= tolerance)) {
    throw new AssertionError(
      `Expected actual: "${actual}" to be close to "${expected}"${
        msg ? `: ${msg}` : ""
      }`,
    );
  }
}

/** Fails unless `actual` is an instance of `expectedType`. */
export function assertInstanceOf<
  // deno-lint-ignore no-explicit-any
  T extends abstract new (...args: any[]) => any,
>(
  actual: unknown,
  expectedType: T,
  msg = "",
): asserts actual is InstanceType<T> {
  if (!(actual instanceof expectedType)) {
    throw new AssertionError(
      `Expected object to be an instance of "${expectedType.name}"${
        msg ? `: ${msg}` : ""
      }: ${text(actual)}`,
    );
  }
}

/** Fails. */
export function fail(msg?: string): never {
  throw new AssertionError(`Failed assertion${msg ? `: ${msg}` : "."}`);
}
