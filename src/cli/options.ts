/** What the commands share: settings with the options of the command line, and the signals that end a command. */
import { readSettings, type Settings, variableName } from '../settings/settings.ts'

/** Options of the command line go before the environment. */
export function settingsWith(options: Readonly<Record<string, string | undefined>>): Settings {
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  return readSettings({
    ...process.env,
    ...Object.fromEntries(given.map(([key, value]) => [variableName(key), value])),
  })
}

export function untilSignalled(): Promise<void> {
  return new Promise(resolve => {
    const done = (): void => {
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, done)
      resolve()
    }
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, done)
  })
}
