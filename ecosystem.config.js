// PM2: `scripts/install && pm2 start ecosystem.config.js`. Settings come from .env; see docs/pm2.md.
const fs = require("fs");
const path = require("path");

const envFile = path.join(__dirname, ".env");
const file = fs.existsSync(envFile) ? fs.readFileSync(envFile, "utf8") : "";
const seconds = (name, otherwise) => {
  const inFile = new RegExp(`^\\s*${name}\\s*=\\s*["']?([\\d.]+)`, "m").exec(file);
  return Number(process.env[name] || (inFile && inFile[1]) || otherwise);
};
const drainSeconds = seconds("DRAIN_WAIT", 0) + seconds("DRAIN_TIMEOUT", 30);

module.exports = {
  apps: [
    {
      name: "chat-api",
      cwd: __dirname,
      script: "app.py",
      interpreter: ".venv/bin/python",
      exec_mode: "fork", // PM2's cluster mode is for Node only
      instances: 1,
      // PM2 sends SIGINT and, after this many milliseconds, SIGKILL: streams in flight get their drain time first.
      kill_timeout: Math.ceil((drainSeconds + 5) * 1000),
      // Exit code 3 means bad settings: starting again cannot mend them, so the reason stays the last thing logged.
      // No exp_backoff_restart_delay beside it: PM2 would then call the stopped process "waiting restart" forever.
      stop_exit_codes: [3],
      max_memory_restart: "1G",
      log_date_format: "", // every line has its time already
      env: { PYTHONUNBUFFERED: "1" },
    },
  ],
};
