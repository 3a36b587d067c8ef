/** Descriptors of this process. */
function descriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

/** Mappings of a vCPU in this process. */
function mappings(): number {
  return Deno.readTextFileSync("/proc/self/maps").split("kvm-vcpu").length - 1;
}

/** Timers of this process. */
function timers(): number {
  return Deno.readTextFileSync("/proc/self/timers").split("ID:").length - 1;
}

/** What this process holds of what VMs are made of. */
export function held(): Record<string, number> {
  return {
    descriptors: descriptors(),
    mappings: mappings(),
    timers: timers(),
  };
}
