/** What access and TLS need from the settings, beyond each field for itself. */

interface AccessSettings {
  readonly operatorKey: string
  readonly operatorKeyFile: string
  readonly workerJoinSecret: string
  readonly workerJoinSecretFile: string
  readonly workerJoinParameter: string
  readonly tlsCertFile: string
  readonly tlsKeyFile: string
}

/** @returns sentences that say what to mend */
export function faultsOfAccess(settings: AccessSettings): string[] {
  const faults: string[] = []
  if (settings.operatorKey !== '' && settings.operatorKeyFile !== '')
    faults.push('MUSTER_OPERATOR_KEY and MUSTER_OPERATOR_KEY_FILE are both set: one of them is enough')
  if (settings.workerJoinSecret !== '' && settings.workerJoinSecretFile !== '')
    faults.push('MUSTER_WORKER_JOIN_SECRET and MUSTER_WORKER_JOIN_SECRET_FILE are both set: one of them is enough')
  if ((settings.tlsCertFile === '') !== (settings.tlsKeyFile === ''))
    faults.push('MUSTER_TLS_CERT_FILE and MUSTER_TLS_KEY_FILE go together: set both or none')
  if (!/^[A-Za-z0-9_./:-]*$/.test(settings.workerJoinParameter))
    faults.push('MUSTER_WORKER_JOIN_PARAMETER must be the name of an SSM parameter, like /muster/join-secret')
  return faults
}

/** Whether only this machine reaches that address. */
export const isLoopback = (host: string): boolean =>
  /^(?:localhost|127(?:\.\d{1,3}){3}|::1|::ffff:127(?:\.\d{1,3}){3})$/i.test(host)
