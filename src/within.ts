/** Bounds a call that might never return. */

/**
 * @param ms how long to wait
 * @param what names the call in the error
 * @throws Error when the time is up; what comes of the call later is ignored, so it must be harmless
 */
export async function within<T>(ms: number, what: string, call: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const expiry = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not answer within ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([call, expiry])
  } finally {
    clearTimeout(timer)
  }
}
