// Node-RED as it comes, without its editor and without asking the network for news.
module.exports = {
    uiHost: "127.0.0.1",
    uiPort: process.env.LISTEN_PORT,
    flowFile: "flows.json",
    disableEditor: true,
    httpAdminRoot: false,
    telemetry: { enabled: false, updateNotification: false },
    externalModules: { autoInstall: false },
    logging: { console: { level: "warn", metrics: false, audit: false } },
};
