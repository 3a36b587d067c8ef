import type { GuestMachine } from "../hyperv/guest_machine.ts";
import { UsageError } from "./usage.ts";

/** What a guest is started from. */
export interface GuestImage {
  /** The file's name. */
  name: string;
  /** What the file holds. */
  data: Uint8Array;
  /** Loads it and what goes with it. @throws {UsageError} If it cannot be used. */
  load: (guest: GuestMachine) => void;
}

/** Reads an image. @throws {UsageError} If it cannot be read. */
export function readImage(path: string): Uint8Array {
  try {
    if (!Deno.statSync(path).isFile) {
      throw new UsageError(`Cannot read ${path}: not a file`);
    }
    return Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`Cannot read ${path}: ${(error as Error).message}`);
  }
}

/** Loads an image; one that cannot be used is the user's error. */
export function loadOrRefuse(load: () => void): void {
  try {
    load();
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof RangeError) {
      throw new UsageError(error.message);
    }
    throw error;
  }
}
